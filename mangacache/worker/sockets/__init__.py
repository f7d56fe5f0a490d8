"""The WebSockets of the worker: `/v1/ws`, one session a connection."""
