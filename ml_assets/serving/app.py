"""The HTTP face of the endpoint: `GET /health`, `POST /predict` and `POST /models/<model>/predict`.

Which release of which model serves is said by the pointer files below `releases`. The server watches them: a new
release is loaded and verified beside the old one, then takes its place between two requests; one that cannot be loaded
never serves, and the old one goes on.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ml_assets.errors import InvalidRequestError, MlAssetsError
from ml_assets.serving.bundle import POINTER, read_pointer
from ml_assets.serving.online import OnlineStore, open_online
from ml_assets.serving.scorer import Scorer

WATCH_INTERVAL = 0.25  # seconds between two looks at the pointer files


class Served:
    """What serves now: for each model its scorer, the release's name and since when."""

    def __init__(self, releases: Path, online: str | None) -> None:
        self.releases = releases
        self.online = online
        self.scorers: dict[str, tuple[str, Scorer, str]] = {}
        self.refused: dict[str, dict[str, str]] = {}

    def refresh(self) -> None:
        """Follow the pointer files. A release that cannot be loaded is refused, once, with the reason."""
        pointers = {path.parent.name: path for path in self.releases.glob(f"*/{POINTER}")}
        for model in self.scorers.keys() - pointers.keys():
            del self.scorers[model]
        for model in pointers:
            try:
                name = read_pointer(self.releases, model)
            except (OSError, ValueError, KeyError) as error:
                self.refused[model] = {"release": "?", "reason": f"{POINTER} cannot be read: {error}"}
                continue
            if name is None or self.release_of(model) == name:
                self.refused.pop(model, None)
                continue
            if self.refused.get(model, {}).get("release") == name:
                continue
            try:
                scorer = Scorer.load(self.releases / model / name, self._online_of(model))
            except Exception as error:
                # Whatever is wrong with a release must not take down the models that serve.
                self.refused[model] = {"release": name, "reason": f"{type(error).__name__}: {error}"}
                continue
            self.scorers[model] = (name, scorer, datetime.now(UTC).isoformat())
            self.refused.pop(model, None)

    def _online_of(self, model: str) -> OnlineStore | None:
        return open_online(self.online, model) if self.online else None

    def release_of(self, model: str) -> str | None:
        return self.scorers[model][0] if model in self.scorers else None


def create_app(releases: Path, online: str | None = None) -> Starlette:
    """The ASGI app over the releases below a folder.

    Args:
        online: where the online stores of the models are, as `open_online` takes it.
    """
    served = Served(releases, online)

    async def health(request: Request) -> Response:
        models = {
            model: {
                "version": scorer.manifest.version,
                "release": name,
                "since": since,
                "scorer": scorer.manifest.scorer,
                "scorer_reason": scorer.manifest.scorer_reason,
                "looked_up": scorer.counts,
            }
            for model, (name, scorer, since) in sorted(served.scorers.items())
        }
        return _json({"status": "ok", "pid": os.getpid(), "models": models, "refused": served.refused})

    async def predict(request: Request) -> Response:
        try:
            model = request.path_params.get("model") or _only(list(served.scorers))
            if model not in served.scorers:
                known = ", ".join(sorted(served.scorers)) or "none yet"
                return _json({"error": f"no model {model!r} serves here; there is {known}"}, 404)
            try:
                body = msgspec.json.decode(await request.body())
            except msgspec.DecodeError as error:
                raise InvalidRequestError(f"the body is no JSON: {error}") from None
            if not isinstance(body, dict) or not {"rows"} <= set(body) <= {"rows", "looked_up"}:
                raise InvalidRequestError('send {"rows": [{column: value, ...}, ...]}')
            _, scorer, _ = served.scorers[model]
            answers = await run_in_threadpool(scorer.predict, body["rows"], body.get("looked_up"))
        except MlAssetsError as error:
            return _json({"error": str(error)}, getattr(error, "status", 500))
        return _json({"model": model, "version": scorer.manifest.version, "predictions": answers})

    @contextlib.asynccontextmanager
    async def watch(app: Starlette) -> AsyncIterator[None]:
        await run_in_threadpool(served.refresh)

        async def follow() -> None:
            while True:
                await asyncio.sleep(WATCH_INTERVAL)
                await run_in_threadpool(served.refresh)

        task = asyncio.create_task(follow())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/predict", predict, methods=["POST"]),
            Route("/models/{model}/predict", predict, methods=["POST"]),
        ],
        lifespan=watch,
    )


def _only(models: list[str]) -> str:
    if len(models) != 1:
        known = ", ".join(sorted(models)) or "none yet"
        raise InvalidRequestError(f"say which model: POST /models/<model>/predict; there is {known}")
    return models[0]


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
