"""OpenTelemetry traces of a worker: a span for each request, and one for each call to DynamoDB, Redis and DAX.

An extra, `mangacache[otel]`. Whoever calls the worker with a `traceparent` (W3C Trace Context) has the request in his
own trace; of the others a share is traced. A span says the way and never what is sent: no content, no id, no path but
its pattern. Nothing of the process is set: the provider is the worker's own.
"""

from __future__ import annotations

from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from mangacache import __version__
from mangacache.errors import Invalid
from mangacache.worker.routing import is_health, route_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aiohttp.typedefs import Handler, Middleware
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

    from mangacache import Settings


_SYSTEMS: Final = {"dynamodb": "aws.dynamodb", "redis": "redis", "dax": "aws.dax"}
_FAILURES: Final = 500
_FLUSH_WITHIN_MS: Final = 1_000


def open_tracing(settings: Settings) -> Tracing | None:
    """Return the traces that `traces_endpoint` asks for; None where it is not set.

    Raises:
        Invalid: the extra is not installed.
    """
    if settings.traces_endpoint is None:
        return None
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.exporter.otlp.proto.http") is None:
        raise Invalid("traces_endpoint is set, and OpenTelemetry is not installed: pip install 'mangacache[otel]'")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - an extra

    exporter: SpanExporter = OTLPSpanExporter(endpoint=f"{settings.traces_endpoint}/v1/traces")
    return Tracing(BatchSpanProcessor(exporter), share=settings.traces_share)


class Tracing:
    """Makes spans; a `Tracer` of the instance's telemetry, and a ring around requests.

    Args:
        processor: where spans go.
        share: of requests without a trace of their own that are traced.
    """

    def __init__(self, processor: SpanProcessor, *, share: float) -> None:
        from opentelemetry import trace  # noqa: PLC0415 - an extra that need not be there
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._trace = trace
        self._propagator = TraceContextTextMapPropagator()
        self._provider: TracerProvider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(share)),
            resource=Resource.create({"service.name": "mangacache", "service.version": __version__}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("mangacache", __version__)

    # What the library's calls are told by: see `telemetry.Tracer`

    @contextmanager
    def span(self, system: str, operation: str) -> Iterator[None]:
        """See `telemetry.Tracer`; a call that belongs to no request is not traced."""
        if not self._trace.get_current_span().is_recording():
            yield
            return
        attributes = {"db.system.name": _SYSTEMS[system], "db.operation.name": operation}
        with self._begun(f"{system} {operation}", self._trace.SpanKind.CLIENT, attributes):
            yield

    # What requests are told by

    @property
    def middleware(self) -> Middleware:
        """The ring around requests, for an application."""

        @web.middleware
        async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
            if is_health(request.path):
                return await handler(request)
            return await self._around(request, handler)

        return around

    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        with self.request(request.method, route_of(request), headers=request.headers) as span:
            response = await handler(request)
            span.set_attribute("http.response.status_code", response.status)
            if response.status >= _FAILURES:
                span.set_status(self._trace.StatusCode.ERROR)
            return response

    @contextmanager
    def request(self, method: str, route: str, *, headers: Mapping[str, str] | None = None) -> Iterator[Span]:
        """Run the block in the span of a request, in the trace that its headers name, where they name one."""
        given = self._propagator.extract(headers or {})
        attributes = {"http.request.method": method, "http.route": route}
        with self._begun(f"{method} {route}", self._trace.SpanKind.SERVER, attributes, given=given) as span:
            yield span

    @contextmanager
    def _begun(self, name: str, kind: Any, attributes: dict[str, str], *, given: Any = None) -> Iterator[Span]:
        """Run the block in a span; of an error its kind is told, since its words may name somebody."""
        with self._tracer.start_as_current_span(
            name, context=given, kind=kind, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except Exception as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(self._trace.StatusCode.ERROR)
                raise

    def close(self) -> None:
        """Send what is left, as far as it can be sent at once; it blocks, so a thread calls it."""
        self._provider.force_flush(_FLUSH_WITHIN_MS)
        self._provider.shutdown()
