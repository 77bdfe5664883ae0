"""The HTTP face of the endpoint: one ASGI app for the local process, the container and SageMaker.

`POST /predict` and `/models/<model>/predict`, SageMaker's `/ping` and `/invocations`, `/health`, `/ready`, `/metrics`,
`/models/<model>/rollout`, and `/docs` with `/openapi.json`. What serves is said by the pointer files below `releases`,
which the server watches.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ml_assets.errors import MlAssetsError
from ml_assets.serving.bodies import CSV, JSON, Sent, UnsupportedError, csv_of, read_body, rows_of_csv, rows_of_json
from ml_assets.serving.ids import INFERENCE_ID, PROBE, REQUEST_ID, id_in, new_id
from ml_assets.serving.journal import Entry
from ml_assets.serving.keys import Keys
from ml_assets.serving.loaded import Loaded
from ml_assets.serving.measured import NO_MODEL, Measured
from ml_assets.serving.openapi import document, page
from ml_assets.serving.options import Options
from ml_assets.serving.prediction_log import NotLoggedError, PredictionLog, now_in_microseconds
from ml_assets.serving.reasons import kept, reason_of
from ml_assets.serving.room import BusyError, Room
from ml_assets.serving.served import Served, Serving
from ml_assets.serving.sides import Asked

WATCH_INTERVAL = 0.25  # seconds between two looks at the pointer files and the keys
SAID_WITH = {503: ((b"retry-after", b"1"),), 401: ((b"www-authenticate", b"Bearer"),)}

_log = logging.getLogger("ml_assets.serving")


class NotAcceptableError(MlAssetsError):
    """An answer of a kind that is not written here."""

    status = 406


class Predict:
    """The routes that predict, as an ASGI app: they are asked a thousand times for each time of any other.

    Attributes:
        other_kinds: whether CSV is read and written too, as SageMaker's contract says.
    """

    def __init__(
        self,
        served: Served,
        options: Options,
        keys: Keys,
        measured: Measured,
        room: Room,
        log: PredictionLog | None,
        *,
        other_kinds: bool,
    ) -> None:
        self.served = served
        self.options = options
        self.keys = keys
        self.measured = measured
        self.room = room
        self.log = log
        self.other_kinds = other_kinds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, at = time.perf_counter(), now_in_microseconds()
        model, status, stage, name = NO_MODEL, 200, "arrive", new_id()
        extra: tuple[tuple[bytes, bytes], ...] = ()
        serving: Serving | None = None
        by: Loaded
        headers: dict[bytes, bytes] = dict(scope["headers"])
        try:
            async with asyncio.timeout(self.options.seconds):
                self.keys.require(scope["headers"])
                serving = self._asked_for(scope["path_params"].get("model"), headers)
                manifest = serving.scorer.manifest
                model = manifest.model
                name = id_in(headers, REQUEST_ID) or name
                given = id_in(headers, INFERENCE_ID)
                body = await read_body(receive, headers, self.options.max_bytes)
                stage = "be answered"
                form = self._kind(headers, b"content-type", UnsupportedError)
                if form == CSV:
                    sent = Sent(rows_of_csv(body, manifest.inputs, self.options))
                else:
                    sent = rows_of_json(body, self.options)
                kind = self._kind(headers, b"accept", NotAcceptableError)
                with self.room.taken(len(sent.rows)):
                    if serving.split is None or PROBE in headers:
                        by, answered = serving, await serving.batcher.predict(sent.rows, sent.looked_up)
                    else:
                        asked = Asked(given or (name if REQUEST_ID in headers else None), body)
                        by, answered = await serving.split.answered(sent, asked)
                answer = {"model": model, "version": by.version, "predictions": answered.answers}
                said = msgspec.json.encode(answer)
                content = csv_of(answered.answers) if kind == CSV else said
                if self.log is not None and PROBE not in headers:
                    entry = Entry(
                        at,
                        name,
                        status,
                        by.version,
                        by.release,
                        time.perf_counter() - started,
                        "csv" if form == CSV else "json",
                        body,
                        said,
                        given,
                        kept(answered.looked_up),
                    )
                    if self.log.durable:
                        stage = "be logged"
                        await self.log.append_durably(model, entry)
                    else:
                        self.log.append(model, entry)
        except Exception as error:
            status, why = self._failure(error, model, stage)
            kind, content, extra = JSON, msgspec.json.encode({"error": why}), SAID_WITH.get(status, ())
            if not isinstance(error, NotLoggedError):
                self._refused(serving, at, name, status, started, headers, error)
        if PROBE in headers:
            self.measured.probed(model)
        if status == 200:
            self.measured.answered(model, by.version, answered.answers, time.perf_counter() - started)
        else:
            self.measured.count(model, status)
        await _send(send, status, kind, content, ((REQUEST_ID, name.encode()), *extra))

    def _asked_for(self, model: str | None, headers: dict[bytes, bytes]) -> Serving:
        """What serves a model; or the release that a probe names, which then answers by itself."""
        probed = headers.get(PROBE, b"1")
        return self.served.get(model) if probed == b"1" else self.served.named(model, probed.decode("latin-1"))

    def _failure(self, error: Exception, model: str, stage: str) -> tuple[int, str]:
        """Status and words for a request that failed."""
        if isinstance(error, MlAssetsError):
            return getattr(error, "status", 500), str(error)
        if isinstance(error, TimeoutError):
            said = f"it took more than {self.options.seconds:g} s to {stage}"
            return 408 if stage == "arrive" else 504, said
        _log.exception("a request to %s failed", model or "no model")
        return 500, "the server failed; see its log"

    def _refused(
        self,
        serving: Serving | None,
        at: int,
        name: str,
        status: int,
        started: float,
        headers: dict[bytes, bytes],
        error: Exception,
    ) -> None:
        """Log a request that was not answered: what was wrong with it, and no value of it."""
        if isinstance(error, BusyError) and serving is not None:
            self.measured.shed(serving.scorer.manifest.model)
        if self.log is None or serving is None or PROBE in headers:
            return
        manifest, seconds = serving.scorer.manifest, time.perf_counter() - started
        reason, column = reason_of(error, manifest)
        entry = Entry(at, name, status, manifest.version, serving.release, seconds, reason=reason, column=column)
        self.log.append(manifest.model, entry)

    def _kind(self, headers: dict[bytes, bytes], name: bytes, refused: type[MlAssetsError]) -> str:
        """JSON or CSV: what the body is, or what the answer is to be."""
        given = headers.get(name)
        if given is None or not self.other_kinds:
            return JSON
        kinds = [each.split(";")[0].strip().lower() for each in given.decode("latin-1").split(",")]
        for each in kinds:
            if each in ("", "*/*", "application/*", JSON):
                return JSON
            if each in (CSV, "text/*"):
                return CSV
        raise refused(f"{name.decode()} {given.decode('latin-1')!r:.80}: here are {JSON} and {CSV}")


async def _send(send: Any, status: int, kind: str, content: bytes, extra: Any = ()) -> None:
    headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(content)), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def create_app(releases: Path, online: str | None = None, options: Options | None = None) -> ASGIApp:
    """The ASGI app over the releases below a folder, or over the one that the folder is.

    Args:
        online: where the online stores of the models are, as `open_online` takes it.
    """
    options = options or Options()
    served = Served(releases, online, options.seconds)
    log = PredictionLog(options.journal, durable=options.durable) if options.journal else None
    room = Room(options.max_waiting)
    keys, measured = Keys(options), Measured(served, room, log)

    async def health(request: Request) -> Response:
        logging_to = log.health() if log else {"mode": "off"}
        return _json({"status": "ok", "pid": os.getpid(), **served.health(), "prediction_log": logging_to})

    async def ready(request: Request) -> Response:
        state = {"ready": served.ready, "models": sorted(served.models), "refused": served.refused}
        return _json(state, 200 if served.ready else 503)

    async def rollout(request: Request) -> Response:
        try:
            keys.require(request.scope["headers"])
            return _json(served.rollout(request.path_params["model"]))
        except MlAssetsError as error:
            return _json({"error": str(error)}, getattr(error, "status", 500))

    def guarded(answer: Callable[[], Response]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                keys.require(request.scope["headers"])
            except MlAssetsError as error:
                return _json({"error": str(error)}, 401)
            return answer()

        return endpoint

    @contextlib.asynccontextmanager
    async def watch(app: Starlette) -> AsyncIterator[None]:
        await run_in_threadpool(served.refresh)
        if log:
            log.start()

        async def follow() -> None:
            while True:
                await asyncio.sleep(WATCH_INTERVAL)
                await run_in_threadpool(served.refresh)
                await run_in_threadpool(keys.refresh)

        task = asyncio.create_task(follow())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        if log:
            await run_in_threadpool(log.close)
        unanswered = f"{room.waiting} rows are not answered" if room.waiting else "every request that came is answered"
        _log.info("the server ends: %s", unanswered)

    predict = Predict(served, options, keys, measured, room, log, other_kinds=False)
    invoke = Predict(served, options, keys, measured, room, log, other_kinds=True)
    routes = Starlette(
        routes=[
            # For what is asked there with another method; see `app` below.
            Route("/predict", predict, methods=["POST"]),
            Route("/models/{model}/predict", predict, methods=["POST"]),
            Route("/models/{model}/rollout", rollout),
            Route("/invocations", invoke, methods=["POST"]),
            Route("/health", health),
            Route("/ready", ready),
            Route("/ping", ready),
            Route("/metrics", guarded(lambda: Response(measured.text(), media_type="text/plain; version=0.0.4"))),
            Route("/openapi.json", guarded(lambda: _json(document(served)))),
            Route("/docs", guarded(lambda: HTMLResponse(page(served)))),
        ],
        lifespan=watch,
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # Starlette's way to a route takes a tenth of a prediction's time.
        if (model := _predicts(scope)) is not None:
            scope["path_params"] = {"model": model} if model else {}
            await predict(scope, receive, send)
        else:
            await routes(scope, receive, send)

    return app


def _predicts(scope: Scope) -> str | None:
    """The model that a request wants a prediction of; empty: the only one; None if it wants something else.

    >>> _predicts({"type": "http", "method": "POST", "path": "/models/orders/predict"})
    'orders'
    """
    if scope["type"] != "http" or scope["method"] != "POST":
        return None
    path: str = scope["path"]
    if path == "/predict":
        return ""
    model = path.removeprefix("/models/").removesuffix("/predict")
    return model if model and path == f"/models/{model}/predict" and "/" not in model else None


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type=JSON)
