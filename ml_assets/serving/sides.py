"""Two releases of one model that answer its requests: who answers which, and what becomes of them.

The champion answers whatever the challenger does not: requests of the other keys, and those at which the challenger
fails, takes too long, or gives an answer that is none. No answer is made of both.
"""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from ml_assets.errors import MlAssetsError
from ml_assets.serving.bodies import Sent
from ml_assets.serving.loaded import Loaded
from ml_assets.serving.observed import Edges, Observed, validity
from ml_assets.serving.pointer import Beside
from ml_assets.serving.scorer import Answered
from ml_assets.serving.sticky import takes_challenger

SECONDS, SECONDS_PER_ROW = 1.0, 0.002  # for which the champion's callers wait for the challenger
MOST_SHADOWS = 64  # requests that the challenger is asked about in the background
MOST_SHADOW_ROWS = 2_000


class Asked(NamedTuple):
    """What a request's side depends on besides its rows.

    Attributes:
        given: the caller's id of the request, or of its only row.
        body: its bytes.
    """

    given: str | None
    body: bytes


def key_of(sent: Sent, asked: Asked, entity: tuple[str, ...], by: str) -> str:
    """What sticks to a side, for a whole request: the same as long as the callers say the same.

    The entity of the first row, if the model has any and `by` is not `request` (of several columns all together, as
    JSON); else the caller's id of the first row, or of the request; else the body.
    """
    if by == "entity" and entity and isinstance(sent.rows[0], dict):
        values = [sent.rows[0].get(name) for name in entity]
        if any(each is not None for each in values):
            return _text(values[0] if len(values) == 1 else values)
    if sent.ids and sent.ids[0] is not None:
        return _text(sent.ids[0])
    return asked.given or asked.body.decode("latin-1")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


class Split:
    """A champion and its challenger during one step.

    Attributes:
        dropped: of a shadow step, requests that the challenger was not asked about because others waited.
        agreed: of a shadow step, requests whose first row got the same label (or value) of both sides.
    """

    def __init__(self, champion: Loaded, challenger: Loaded, said: Beside, edges: Edges, seconds: float) -> None:
        self.champion, self.challenger, self.said = champion, challenger, said
        self.since = datetime.now(UTC)
        self.observed = Observed(edges), Observed(edges)
        self.dropped = self.agreed = 0
        self._most_seconds = seconds / 2
        self._valid = validity(champion.scorer.manifest), validity(challenger.scorer.manifest)
        self._entity = champion.scorer.manifest.entity
        self._shadows: set[asyncio.Task[None]] = set()
        self._shadow_rows = 0

    async def answered(self, sent: Sent, asked: Asked) -> tuple[Loaded, Answered]:
        """The answers to a request, and who gave them.

        Raises:
            MlAssetsError: what the champion raises.
        """
        said = self.said
        if said.weight and takes_challenger(key_of(sent, asked, self._entity, said.by), said.salt, said.weight):
            return await self._of_challenger(sent)
        started = time.perf_counter()
        try:
            answers = await self.champion.batcher.predict(sent.rows, sent.looked_up)
        except (Exception, asyncio.CancelledError) as error:
            if not said.shadow and not _callers_fault(error):
                self.observed[0].failed()
            raise
        seconds = time.perf_counter() - started
        if said.shadow:
            self._ask_in_background(sent, seconds, answers)
        else:
            _note(self.observed[0], seconds, answers.answers, self._valid[0](answers.answers))
        return self.champion, answers

    async def _of_challenger(self, sent: Sent) -> tuple[Loaded, Answered]:
        """The challenger's answers, or else the champion's."""
        started = time.perf_counter()
        found = await self._ask_challenger(sent)
        seen = self.observed[1]
        if isinstance(found, Answered):
            if self._valid[1](found.answers):
                seen.answered(time.perf_counter() - started, found.answers[0])
                return self.challenger, found
            seen.answered_invalidly()
            return self.champion, await self.champion.batcher.predict(sent.rows, sent.looked_up)
        try:
            answers = await self.champion.batcher.predict(sent.rows, sent.looked_up)
        except Exception as error:
            # What both refuse is the caller's fault; what both cannot answer counts for who was asked first.
            if not (_callers_fault(error) and _callers_fault(found)):
                seen.failed()
            raise
        seen.failed()
        return self.champion, answers

    async def _ask_challenger(self, sent: Sent) -> Answered | Exception:
        """Its answers, or why there are none."""
        limit = min(SECONDS + SECONDS_PER_ROW * len(sent.rows), self._most_seconds)
        batcher = self.challenger.batcher
        if batcher.seconds > limit:
            return TimeoutError("an earlier request is not answered yet")
        try:
            async with asyncio.timeout(limit):
                answers = await batcher.predict(sent.rows, sent.looked_up)
        except Exception as error:
            return error
        if len(answers.answers) != len(sent.rows):
            return ValueError(f"{len(answers.answers)} answers to {len(sent.rows)} rows")
        return answers

    def _ask_in_background(self, sent: Sent, seconds: float, answers: Answered) -> None:
        full = len(self._shadows) >= MOST_SHADOWS or self._shadow_rows + len(sent.rows) > MOST_SHADOW_ROWS
        if full and self._shadows:
            self.dropped += 1
            return
        self._shadow_rows += len(sent.rows)
        task = asyncio.get_running_loop().create_task(self._compare(sent, seconds, answers))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    async def _compare(self, sent: Sent, seconds: float, answers: Answered) -> None:
        """Ask the challenger what the champion has answered, and count both or neither."""
        try:
            started = time.perf_counter()
            found = await self._ask_challenger(sent)
            theirs, ours = self.observed
            _note(theirs, seconds, answers.answers, self._valid[0](answers.answers))
            if isinstance(found, Exception):
                ours.failed()
                return
            valid = self._valid[1](found.answers)
            _note(ours, time.perf_counter() - started, found.answers, valid)
            same = "value" if "value" in answers.answers[0] else "label"
            self.agreed += valid and answers.answers[0][same] == found.answers[0][same]
        finally:
            self._shadow_rows -= len(sent.rows)

    def to_json(self) -> dict[str, Any]:
        """In the form of `deployment.targets.Observation`, and what else is known."""
        champion, challenger = (each.to_json() for each in self.observed)
        counted = {"champion": champion, "challenger": challenger, "shadow": self.said.shadow}
        return counted | ({"dropped": self.dropped, "agreed": self.agreed} if self.said.shadow else {})


def _note(seen: Observed, seconds: float, answers: list[dict[str, Any]], valid: bool) -> None:
    if valid:
        seen.answered(seconds, answers[0])
    else:
        seen.answered_invalidly()


def _callers_fault(error: BaseException) -> bool:
    return isinstance(error, MlAssetsError) and getattr(error, "status", 500) < 500
