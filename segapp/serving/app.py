"""The HTTP interface: what is at which address. docs/serve.md describes it to people, /openapi.json to programs."""

import hmac
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segapp import __version__
from segapp.inference.classify import TOP
from segapp.inference.prediction import Outputs
from segapp.serving.answers import OUTPUTS, Format, answer, as_read, everything, format_of
from segapp.serving.metrics import Metrics
from segapp.serving.networks import ClassNetwork, Segmenter, described
from segapp.serving.page import SAMPLES, html
from segapp.serving.page import sample as sample_of
from segapp.serving.refusals import Refusal
from segapp.serving.service import BYTES_A_PIXEL, Job, Service

log = logging.getLogger(__name__)

AS_READ = "For pages: the image as it was read, turned as its EXIF block says, in base64, too."


class Problem(BaseModel):
    """error: one sentence."""

    error: str


class SegmentQuery(BaseModel):
    """What a request for a segmentation may choose; what it leaves is as the service was started."""

    model_config = ConfigDict(extra="forbid")

    format: Format | None = Field(None, description="What is answered; without it, by the header Accept.")
    inference: str | None = Field(None, description="How the image is shown: one of limits.inference of /v1/model.")
    scales: str | None = Field(
        None,
        description="Whose probabilities are averaged, as in 0.5,1.0: of limits.scales of /v1/model.",
        pattern=r"^\d{1,3}(\.\d{1,6})?(,\d{1,3}(\.\d{1,6})?){0,15}$",
    )
    flip: bool | None = Field(None, description="The mirror image of each scale, too.")
    picture: bool = Field(False, description=f"With format=all. {AS_READ}")


class ClassifyQuery(BaseModel):
    """What a request for a classification may choose."""

    model_config = ConfigDict(extra="forbid")

    top: int = Field(TOP, gt=0, le=100_000, description="So many of the most probable classes.")
    picture: bool = Field(False, description=AS_READ)


IMAGE = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": {"type": "string", "format": "binary"}},
                }
            },
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
WRONG = {
    400: "The request or the image is wrong.",
    401: "The token is missing or another.",
    404: "There is no such thing here.",
    408: "The image came too slowly.",
    413: "Too many bytes or pixels.",
    415: "No type of an image.",
    429: "Too many requests are in work; Retry-After says when to try again.",
    503: "The service is stopping, or out of memory.",
    504: "Time was up.",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "model": Problem} for status, text in WRONG.items()
} | {"default": {"description": "Another error.", "model": Problem}}
BINARY = {"schema": {"type": "string", "format": "binary"}}
SEGMENTED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The labels, in the form asked for.",
        "content": {"image/png": BINARY, "image/jpeg": BINARY, "application/x-npz": BINARY, "application/json": {}},
    }
}


def make_app(service: Service) -> FastAPI:
    """The interface of a service."""
    config, network = service.config, service.network

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="segapp",
        description="Labels the pixels of images, or images, with one network.",
        version=__version__,
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    whole = html()
    guard = [] if config.token is None else [Depends(_needs(config.token))]

    @app.post("/v1/segment", dependencies=guard, openapi_extra=IMAGE, responses=SEGMENTED | ERRORS)
    async def segment(request: Request, query: Annotated[SegmentQuery, Query()]) -> Response:
        """The class of each pixel of an image."""
        if not isinstance(network, Segmenter):
            raise Refusal(404, "a classifier answers here, at /v1/classify")
        service.check_ready()
        scales = None if query.scales is None else tuple(float(each) for each in query.scales.split(","))
        predictor = network.chosen(query.inference, scales, query.flip)
        form = query.format or format_of(request.headers.get("accept", "*/*"))
        outputs = OUTPUTS.get(form, Outputs())
        more = 2 * len(network.classes) if outputs.probabilities else 0
        async with service.receiver.reading(request) as upload:
            job = Job(
                upload.content,
                key=lambda size: network.key(predictor, size, outputs),
                finish=lambda image, found: (
                    everything(upload.name, found, network.spec) | (as_read(image) if query.picture else {})
                    if form == "all"
                    else answer(form, image, upload.name, found, network.spec)
                ),
                bytes_a_pixel=BYTES_A_PIXEL + more,
                shown=predictor.pixels_shown,
            )
            result = await service.run(job, _gone(request))
        headers = {"X-Segapp-Protocol": predictor.protocol, "Server-Timing": job.timing}
        if isinstance(result, dict):
            return JSONResponse(_timed(job) | {"protocol": predictor.protocol} | result, headers=headers)
        return Response(result.content, media_type=result.media_type, headers=headers)

    @app.post("/v1/classify", dependencies=guard, openapi_extra=IMAGE, responses=ERRORS)
    async def classify(request: Request, query: Annotated[ClassifyQuery, Query()]) -> JSONResponse:
        """The most probable classes of an image."""
        if not isinstance(network, ClassNetwork):
            raise Refusal(404, "a network for segmentation answers here, at /v1/segment")
        service.check_ready()

        def finish(image: Any, found: Any) -> dict[str, Any]:
            best = [(index, float(found[index])) for index in (-found).argsort(kind="stable")[: query.top].tolist()]
            classes = [{"index": i, "name": network.classes[i], "probability": p} for i, p in best]
            answered = {"width": image.shape[1], "height": image.shape[0], "classes": classes}
            return answered | (as_read(image) if query.picture else {})

        async with service.receiver.reading(request) as upload:
            job = Job(upload.content, key=lambda size: network.predictor, finish=finish)
            result = await service.run(job, _gone(request))
        headers = {"X-Segapp-Protocol": network.protocol, "Server-Timing": job.timing}
        return JSONResponse(_timed(job) | {"protocol": network.protocol} | result, headers=headers)

    @app.get("/v1/model", dependencies=guard, responses=ERRORS)
    async def model() -> JSONResponse:
        """The network that answers, and what may be asked of it."""
        return JSONResponse(described(network, config.checkpoint))

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        """Whether the process lives."""
        return JSONResponse({"status": "ok"})

    @app.get("/readyz", responses={503: ERRORS[503]})
    async def readyz() -> JSONResponse:
        """Whether requests are taken."""
        service.check_ready()
        return JSONResponse({"status": "ready"})

    @app.get("/metrics", dependencies=guard, response_class=Response, responses=ERRORS)
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return Response(whole, media_type="text/html")

    @app.get("/samples/{name}", include_in_schema=False)
    async def sample(name: str) -> Response:
        if name not in SAMPLES:
            raise Refusal(404, "there is no such sample")
        return Response(sample_of(name), media_type="image/jpeg")

    _answer_errors(app)
    paths = {getattr(route, "path", "") for route in app.routes}
    app.add_middleware(_Counted, metrics=service.metrics, paths=paths)
    if config.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["X-Segapp-Protocol", "Server-Timing", "Retry-After"],
        )
    return app


def _timed(job: Job) -> dict[str, Any]:
    return {"milliseconds": round(1000 * (time.perf_counter() - job.begun), 1)}


def _gone(request: Request) -> Any:
    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return gone


def _needs(token: str) -> Any:
    """Refuses requests without the token."""

    async def check(
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
    ) -> None:
        said = "" if given is None else given.credentials
        if not hmac.compare_digest(said.encode(), token.encode()):
            raise Refusal(
                401, "send the service's token, as in Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
            )

    return check


def _answer_errors(app: FastAPI) -> None:
    """Every error is JSON with one sentence."""

    def told(status: int, message: str, headers: Any = None) -> JSONResponse:
        return JSONResponse({"error": " ".join(message.split())}, status, headers)

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> JSONResponse:
        return told(error.status, str(error), error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return told(400, f"{first['loc'][-1]}: {first['msg'][:1].lower()}{first['msg'][1:]}")

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> JSONResponse:
        return told(error.status_code, f"{request.method} {request.url.path}: {error.detail}".lower(), error.headers)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return told(500, "the service failed; its log says more")


class _Counted:
    """Counts answers for /metrics, and forbids browsers to guess their types."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: set[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = scope["path"] if scope["path"] in self._paths else "other"
                self._metrics.requests.labels(path, str(message["status"])).inc()
                MutableHeaders(scope=message)["X-Content-Type-Options"] = "nosniff"
            await send(message)

        await self._app(scope, receive, counted)
