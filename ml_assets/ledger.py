"""What was decided about a model's refreshes and trainings, when, and why: the `ledger` table.

A decision is written when it differs from the one before, so that a tick every few seconds adds nothing.
"""

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

import polars as pl

from ml_assets.lake import Lake

TABLE = "ledger"


@dataclass(frozen=True)
class Decision:
    """One decision.

    Attributes:
        subject: `data`, `training` or `feedback`.
        decision: what was done about it: `asked for`, `waits` or `nothing to do`.
        assets: those that a run was asked for.
        partitions: how many of them.
    """

    subject: str
    decision: str
    reason: str
    assets: list[str] = field(default_factory=list)
    partitions: int = 0
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def same_as(self, other: "Decision | None") -> bool:
        return other is not None and (self.decision, self.reason) == (other.decision, other.reason)


_SCHEMA: dict[str, pl.DataType] = {
    "subject": pl.String(),
    "decision": pl.String(),
    "reason": pl.String(),
    "assets": pl.String(),
    "partitions": pl.Int64(),
    "at": pl.Datetime("us", "UTC"),
}


def note(lake: Lake, model: str, decision: Decision) -> None:
    """Write a decision, unless it is the same as the last one on its subject and asks for nothing."""
    earlier = [each for each in decisions(lake, model) if each.subject == decision.subject]
    if not decision.assets and decision.same_as(earlier[-1] if earlier else None):
        return
    row = asdict(decision) | {"assets": " ".join(decision.assets)}
    lake.append(model, TABLE, pl.DataFrame([row], schema=_SCHEMA))


def decisions(lake: Lake, model: str) -> list[Decision]:
    """All decisions, the latest last."""
    rows = lake.read(model, TABLE)
    if rows.is_empty():
        return []
    return [Decision(**(row | {"assets": row["assets"].split()})) for row in rows.sort("at").to_dicts()]
