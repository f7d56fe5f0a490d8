"""The worker: a process that serves bots and gateways by HTTP and WebSocket."""
