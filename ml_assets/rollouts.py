"""The journal of a model's rollouts, and what it says of who answered when: the `rollouts` table.

Entries are only added. Each has what the target described when it was written, so the serving history is what the
target confirmed, and needs no table of its own that a crash could leave behind.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from ml_assets.deployment.rollout import Phase, State
from ml_assets.deployment.targets import Described, Observation, Release
from ml_assets.lake import Lake

TABLE = "rollouts"

_SCHEMA: dict[str, pl.DataType] = {
    "entry": pl.Int64(),
    "number": pl.Int64(),
    "phase": pl.String(),
    "challenger": pl.String(),
    "champion": pl.String(),
    "step": pl.Int64(),
    "reason": pl.String(),
    "cause": pl.String(),
    "outcome": pl.String(),
    "by_hand": pl.Boolean(),
    "salt": pl.String(),
    "observed": pl.String(),
    "findings": pl.String(),
    "serves": pl.String(),
    "started": pl.Datetime("us", "UTC"),
    "since": pl.Datetime("us", "UTC"),
    "at": pl.Datetime("us", "UTC"),
}


@dataclass(frozen=True)
class LakeJournal:
    """The entries of one model, in its lake."""

    lake: Lake
    model: str

    def states(self) -> Sequence[State]:
        """All entries, oldest first."""
        return [state for _, state in self._entries()]

    def append(self, state: State) -> None:
        """Add an entry, in one commit. One process at a time may do so."""
        entries = self._entries()
        number = entries[-1][0] + 1 if entries else 0
        self.lake.append(self.model, TABLE, pl.DataFrame([{"entry": number} | _row(state)], schema=_SCHEMA))

    def _entries(self) -> list[tuple[int, State]]:
        rows = self.lake.read(self.model, TABLE)
        return [] if rows.is_empty() else [_state(row) for row in rows.sort("entry").to_dicts()]


def _row(state: State) -> dict[str, Any]:
    return {
        "number": state.number,
        "phase": state.phase.value,
        "challenger": state.challenger.name,
        "champion": state.champion.name if state.champion else None,
        "step": state.step,
        "reason": state.reason,
        "cause": state.cause,
        "outcome": state.outcome.value,
        "by_hand": state.by_hand,
        "salt": state.salt,
        "observed": json.dumps([each.to_json() for each in state.observed]),
        "findings": json.dumps(state.findings),
        "serves": json.dumps(_described(state.serves)),
        "started": state.started,
        "since": state.since,
        "at": state.at,
    }


def _described(described: Described) -> dict[str, Any]:
    return {
        "stable": described.stable,
        "challenger": described.challenger,
        "weight": described.weight,
        "shadow": described.shadow,
        "salt": described.salt,
        "ready": described.ready,
        "since": described.since.isoformat() if described.since else None,
    }


def _state(row: dict[str, Any]) -> tuple[int, State]:
    serves = json.loads(row["serves"])
    serves["since"] = datetime.fromisoformat(serves["since"]) if serves["since"] else None
    return row["entry"], State(
        number=row["number"],
        phase=Phase(row["phase"]),
        challenger=Release.named(row["challenger"]),
        champion=Release.named(row["champion"]) if row["champion"] else None,
        step=row["step"],
        reason=row["reason"],
        cause=row["cause"],
        outcome=Phase(row["outcome"]),
        by_hand=row["by_hand"],
        salt=row["salt"],
        observed=tuple(Observation.from_json(each) for each in json.loads(row["observed"])),
        findings=tuple(json.loads(row["findings"])),
        serves=Described(**serves),
        started=row["started"],
        since=row["since"],
        at=row["at"],
    )


def serving_history(states: Sequence[State]) -> pl.DataFrame:
    """Who served from when to when, as the target confirmed it.

    Returns:
        Columns `from`, `to` (null: until now), `stable`, `challenger` (null: nobody beside it), `weight` (the
        challenger's share in percent), `shadow` and `salt`; `Described.answers` says who answered a key.
    """
    changes: list[dict[str, Any]] = []
    for each in states:
        said = _described(each.serves)
        # Who is loaded beside it without any traffic answers nobody.
        beside = said["challenger"] if said["weight"] or said["shadow"] else None
        now = {
            "stable": said["stable"],
            "challenger": beside,
            "weight": said["weight"] if beside else 0,
            "shadow": said["shadow"],
            "salt": said["salt"] if beside else "",
        }
        if changes and {name: changes[-1][name] for name in now} == now:
            continue
        begins = min(each.serves.since or each.at, each.at)
        if changes:
            begins = max(begins, changes[-1]["from"])
            changes[-1]["to"] = begins
        changes.append({"from": begins, "to": None} | now)
    moment = pl.Datetime("us", "UTC")
    return pl.DataFrame(
        changes,
        schema={
            "from": moment,
            "to": moment,
            "stable": pl.String,
            "challenger": pl.String,
            "weight": pl.Int64,
            "shadow": pl.Boolean,
            "salt": pl.String,
        },
    )


def who_answered(history: pl.DataFrame, key: str, at: datetime) -> str | None:
    """The release that answered a key at a time.

    Returns:
        Its name; None if nothing served, or if the target's split does not stick to keys, so that only its own log
        of predictions knows.
    """
    then = history.filter((pl.col("from") <= at) & (pl.col("to").is_null() | (pl.col("to") > at)))
    if then.is_empty():
        return None
    row = then.row(-1, named=True)
    described = Described(row["stable"], row["challenger"], row["weight"], row["shadow"], salt=row["salt"])
    return described.answers(key)
