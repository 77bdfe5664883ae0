"""The HTTP face of the endpoint: one ASGI app for the local process, the container and SageMaker.

`POST /predict` and `/models/<model>/predict`, SageMaker's `/ping` and `/invocations`, `/health`, `/ready`, `/metrics`,
and `/docs` with `/openapi.json`. What serves is said by the pointer files below `releases`, which the server watches.
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

from ml_assets.errors import MlAssetsError
from ml_assets.serving.bodies import CSV, JSON, UnsupportedError, csv_of, read_body, rows_of_csv, rows_of_json
from ml_assets.serving.keys import Keys
from ml_assets.serving.measured import NO_MODEL, Measured
from ml_assets.serving.openapi import document, page
from ml_assets.serving.options import Options
from ml_assets.serving.room import Room
from ml_assets.serving.served import Served

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
        self, served: Served, options: Options, keys: Keys, measured: Measured, room: Room, *, other_kinds: bool
    ) -> None:
        self.served = served
        self.options = options
        self.keys = keys
        self.measured = measured
        self.room = room
        self.other_kinds = other_kinds

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        started = time.perf_counter()
        model, status, stage = NO_MODEL, 200, "arrive"
        extra: tuple[tuple[bytes, bytes], ...] = ()
        try:
            async with asyncio.timeout(self.options.seconds):
                self.keys.require(scope["headers"])
                serving = self.served.get(scope["path_params"].get("model"))
                manifest = serving.scorer.manifest
                model = manifest.model
                headers = dict(scope["headers"])
                body = await read_body(receive, headers, self.options.max_bytes)
                stage = "be answered"
                if self._kind(headers, b"content-type", UnsupportedError) == CSV:
                    rows, looked_up = rows_of_csv(body, manifest.inputs, self.options), None
                else:
                    rows, looked_up = rows_of_json(body, self.options)
                kind = self._kind(headers, b"accept", NotAcceptableError)
                with self.room.taken(len(rows)):
                    answers = await serving.batcher.predict(rows, looked_up)
                if kind == CSV:
                    content = csv_of(answers)
                else:
                    content = msgspec.json.encode({"model": model, "version": manifest.version, "predictions": answers})
        except MlAssetsError as error:
            status, kind, content = getattr(error, "status", 500), JSON, msgspec.json.encode({"error": str(error)})
            extra = SAID_WITH.get(status, ())
        except TimeoutError:
            status, kind = (408 if stage == "arrive" else 504), JSON
            content = msgspec.json.encode({"error": f"it took more than {self.options.seconds:g} s to {stage}"})
        except Exception:
            _log.exception("a request to %s failed", model or "no model")
            status, kind, content = 500, JSON, b'{"error":"the server failed; see its log"}'
        if status == 200:
            self.measured.answered(model, manifest.version, len(rows), time.perf_counter() - started)
        else:
            self.measured.count(model, status)
        await _send(send, status, kind, content, extra)

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


def create_app(releases: Path, online: str | None = None, options: Options | None = None) -> Starlette:
    """The ASGI app over the releases below a folder, or over the one that the folder is.

    Args:
        online: where the online stores of the models are, as `open_online` takes it.
    """
    options = options or Options()
    served = Served(releases, online)
    keys, measured = Keys(options), Measured(served)
    room = Room(options.max_waiting, measured.waiting.set)

    async def health(request: Request) -> Response:
        return _json({"status": "ok", "pid": os.getpid(), **served.health()})

    async def ready(request: Request) -> Response:
        state = {"ready": served.ready, "models": sorted(served.models), "refused": served.refused}
        return _json(state, 200 if served.ready else 503)

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
        unanswered = f"{room.waiting} rows are not answered" if room.waiting else "every request that came is answered"
        _log.info("the server ends: %s", unanswered)

    predict = Predict(served, options, keys, measured, room, other_kinds=False)
    invoke = Predict(served, options, keys, measured, room, other_kinds=True)
    return Starlette(
        routes=[
            Route("/predict", predict, methods=["POST"]),
            Route("/models/{model}/predict", predict, methods=["POST"]),
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


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type=JSON)
