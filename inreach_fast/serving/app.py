"""The web service around an `Inspector`: POST an image, get its verdict. Needs the extra [serve]."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import re
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Request
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from .._version import __version__
from ..errors import DataError, ImageTooLargeError, InReachError
from .events import log_event
from .histogram import LatencyHistogram
from .inspector import Inspection, Inspector
from .metrics import CONTENT_TYPE, MetricsText
from .uploads import FORM, UploadError, check_type, image_in

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_BUSY = {"Retry-After": "1"}
_PNG = "image/png"
_IMAGE_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            FORM: {"schema": {"type": "object", "properties": {"image": {"type": "string", "format": "binary"}}}},
        },
    },
    "parameters": [
        {"name": "map", "in": "query", "schema": {"type": "integer", "enum": [0, 1]}},
        {"name": "name", "in": "query", "schema": {"type": "string"}},
    ],
}


@dataclass(frozen=True)
class ServiceLimits:
    """What the service accepts.

    Attributes:
        body: bytes of a request's body. body_seconds: in which it must have arrived.
        workers: images that are read and scored at the same time. queue: requests that may wait besides them; they
            hold their bodies in memory. More are refused with 503.
    """

    body: int = 32 << 20
    body_seconds: float = 30.0
    workers: int = 2
    queue: int = 32


class Service:
    """The state behind the app.

    Args:
        inspector: with ``warm=False``: `app` warms it up, and is not ready before.
        draw: the picture of an inspection with a map, as the bytes of a PNG; None: no maps.
        failed: called, in another thread or in the event loop, with an error after which no image can be inspected.
    """

    def __init__(
        self,
        inspector: Inspector,
        limits: ServiceLimits,
        draw: Callable[[Inspection], bytes] | None,
        failed: Callable[[Exception], None],
    ) -> None:
        self.inspector, self.limits = inspector, limits
        self._draw, self._failed = draw, failed
        self._pool = ThreadPoolExecutor(limits.workers, thread_name_prefix="inreach-serve")
        self._accepted = 0  # requests that are being read, wait or are in work
        self._seconds = LatencyHistogram()
        self._statuses: Counter[int] = Counter()

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Warms the inspector up while `/health` says "not ready", and closes it at the end."""
        warming = asyncio.get_running_loop().run_in_executor(self._pool, self._warm_up)
        try:
            yield
        finally:
            await warming
            self._pool.shutdown()
            self.inspector.close()

    def _warm_up(self) -> None:
        try:
            self.inspector.warm_up()
        except Exception as error:
            self._failed(error)

    async def inspect(self, request: Request) -> Response:
        """POST /inspect."""
        begun = time.perf_counter()
        try:
            response = await self._inspect(request)
        except Exception as error:
            response = self._of_error(error)
        self._seconds.record(time.perf_counter() - begun)
        self._statuses[response.status_code] += 1
        return response

    async def _inspect(self, request: Request) -> Response:
        if not self.inspector.ready:
            return _refusal(503, "NotReady", "the service: is not ready yet; ask /health and try again", _BUSY)
        if self._accepted >= self.limits.workers + self.limits.queue:
            words = f"the service: {self._accepted} requests are waiting; try again later, or raise --queue"
            return _refusal(503, "Busy", words, _BUSY)
        self._accepted += 1
        try:
            content_type = request.headers.get("content-type", "")
            check_type(content_type)
            body = await self._body(request)
            name = request.query_params.get("name")
            as_png = _PNG in request.headers.get("accept", "")
            with_map = as_png or request.query_params.get("map", "0") not in ("", "0")
            if with_map and self._draw is None:
                raise UploadError(406, "map: this service draws none; leave it out")
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, self._work, body, content_type, name, with_map, as_png)
        finally:
            self._accepted -= 1

    async def _body(self, request: Request) -> bytes:
        most = self.limits.body
        too_large = UploadError(
            413, f"the body: is larger than {most:,} bytes; send a smaller file, or raise the limit (--max-body)"
        )
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > most:
            raise too_large

        async def read() -> bytes:
            parts, size = [], 0
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise too_large
                parts.append(part)
            return b"".join(parts)

        try:
            return await asyncio.wait_for(read(), self.limits.body_seconds)
        except ClientDisconnect:
            raise UploadError(400, "the body: the client left before it was complete; send it again") from None
        except asyncio.TimeoutError:
            words = f"the body: was not complete after {self.limits.body_seconds:g} s; send it faster"
            raise UploadError(408, words) from None

    def _work(self, body: bytes, content_type: str, name: str | None, with_map: bool, as_png: bool) -> Response:
        """In a worker: from the body to the response."""
        try:
            image, name = image_in(body, content_type, name)
            inspection = self.inspector.attempt(image, name, with_map=with_map)
            if inspection.error is not None:
                return self._of_error(inspection.error)
            row = inspection.row()
            if not with_map or self._draw is None:
                return JSONResponse(row, headers=_HEADERS)
            picture = self._draw(inspection)
            if as_png:
                values = {"Score": repr(inspection.score), "Threshold": repr(inspection.threshold)}
                values["Is-Anomalous"] = str(inspection.is_anomalous).lower()
                extra = {f"X-InReaCh-{key}": value for key, value in values.items()}
                return Response(picture, media_type=_PNG, headers={**_HEADERS, **extra})
            row["map"] = f"data:{_PNG};base64,{base64.b64encode(picture).decode()}"
            return JSONResponse(row, headers=_HEADERS)
        except Exception as error:
            return self._of_error(error)

    def _of_error(self, error: Exception) -> Response:
        kind, words = type(error).__name__, str(error)
        if isinstance(error, UploadError):
            return _refusal(error.status, kind, words)
        if isinstance(error, ImageTooLargeError):
            return _refusal(413, kind, words)
        if isinstance(error, DataError):
            return _refusal(422, kind, words)
        if isinstance(error, MemoryError):
            words = words or "memory: not enough for this image; try again, or send a smaller one"
            return _refusal(503, kind, words, _BUSY)
        if isinstance(error, InReachError):
            self._failed(error)
            return _refusal(503, kind, words)
        where = traceback.format_exception(type(error), error, error.__traceback__)
        log_event("internal_error", level=logging.ERROR, error=repr(error), traceback="".join(where))
        return _refusal(500, kind, "internal error: the service's log has its traceback; report it")

    async def health(self) -> Response:
        """GET /health: 200 once images can be inspected, else 503."""
        ready = self.inspector.ready
        row = {"ready": ready, "model": self.inspector.name, "version": __version__}
        if ready:
            latency = self.inspector.latency.summary()
            row |= {"threshold": self.inspector.threshold, **self.inspector.counts(), "latency": latency}
        return JSONResponse(row, 200 if ready else 503, headers={**_HEADERS, **({} if ready else _BUSY)})

    async def metrics(self) -> Response:
        """GET /metrics: for Prometheus."""
        counts, text = self.inspector.counts(), MetricsText()
        text.add("inreach_ready", "gauge", "Whether images can be inspected.", [({}, self.inspector.ready)])
        verdicts = {"anomalous": counts["anomalous"], "nominal": counts["inspected"] - counts["anomalous"]}
        values = [({"verdict": verdict}, number) for verdict, number in verdicts.items()]
        text.add("inreach_inspections_total", "counter", "Images inspected.", values)
        errors = [({"kind": kind}, number) for kind, number in sorted(counts["errors"].items())]
        text.add("inreach_errors_total", "counter", "Images that could not be inspected.", errors)
        statuses = [({"status": str(status)}, number) for status, number in sorted(self._statuses.items())]
        text.add("inreach_requests_total", "counter", "Requests to /inspect, by status.", statuses)
        text.add("inreach_requests_open", "gauge", "Requests that wait or are in work.", [({}, self._accepted)])
        words = "Reading and scoring an image."
        text.add_histogram("inreach_inspection_seconds", words, self.inspector.latency)
        text.add_histogram("inreach_request_seconds", "A request to /inspect, with its wait.", self._seconds)
        return PlainTextResponse(str(text), media_type=CONTENT_TYPE, headers=_HEADERS)


def make_app(
    inspector: Inspector,
    *,
    limits: ServiceLimits | None = None,
    draw: Callable[[Inspection], bytes] | None = None,
    failed: Callable[[Exception], None] = lambda error: None,
) -> FastAPI:
    """The service as a FastAPI app: POST /inspect, GET /health, /metrics, /openapi.json and a page at /.

    See `Service` for the arguments. The app owns the inspector: it warms it up at its start and closes it at its end.
    """
    service = Service(inspector, limits or ServiceLimits(), draw, failed)
    # The pages at /docs and /redoc would load scripts from elsewhere.
    app = FastAPI(title="inreach", version=__version__, docs_url=None, redoc_url=None, lifespan=service.lifespan)
    page, policy = _page()

    async def index() -> Response:
        """GET /: a page to drop an image on."""
        return HTMLResponse(page, headers={**_HEADERS, "Content-Security-Policy": policy})

    app.add_api_route("/", index, methods=["GET"], include_in_schema=False, response_model=None)
    app.add_api_route("/inspect", service.inspect, methods=["POST"], openapi_extra=_IMAGE_BODY, response_model=None)
    app.add_api_route("/health", service.health, methods=["GET"], response_model=None)
    app.add_api_route("/metrics", service.metrics, methods=["GET"], response_model=None)
    return app


def _refusal(status: int, kind: str, words: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": words, "kind": kind}, status, headers={**_HEADERS, **(headers or {})})


def _page() -> tuple[str, str]:
    """The page, and the policy by which a browser runs its own script and style, and loads nothing else."""
    page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")

    def allowed(tag: str) -> str:
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'"

    parts = ("default-src 'none'", f"script-src {allowed('script')}", f"style-src {allowed('style')}")
    rest = ("img-src data:", "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'")
    return page, "; ".join((*parts, *rest))
