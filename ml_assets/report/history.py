"""What a report tells, read from the lake alone: records, and the tables that assets, rollouts and decisions left."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import polars as pl

from ml_assets.deployment.rollout import State
from ml_assets.lake import PARTITION, WHOLE, Lake
from ml_assets.ledger import Decision, decisions
from ml_assets.model import Model
from ml_assets.records import TABLE as RECORDS
from ml_assets.records import Latest, Record, read_latest
from ml_assets.rollouts import LakeJournal
from ml_assets.spec.base import LOWER_IS_BETTER

MOST_DAYS = 365
MOST_REJECTED = 200_000  # rows whose reasons are read, the newest first
MONITORING = "monitoring"
_FINDINGS: dict[str, Any] = {
    "day": pl.String,
    "version": pl.String,
    "subject": pl.String,
    "name": pl.String,
    "value": pl.Float64,
    "lower": pl.Float64,
    "upper": pl.Float64,
    "limit": pl.Float64,
    "rows": pl.Int64,
    "alarm": pl.Boolean,
    "note": pl.String,
}


@dataclass(frozen=True)
class Trained:
    """One training that was finished.

    Attributes:
        why: what the ledger says of it; empty where nobody but a person asked for it.
        approved: the verdict; None if there is none yet.
        refused: reasons of a negative one.
    """

    version: str
    at: datetime
    rows: int
    why: str = ""
    approved: bool | None = None
    refused: Sequence[str] = ()


@dataclass(frozen=True)
class History:
    """What became of a model.

    Attributes:
        findings: the table `monitoring` of the last days, with its `day`; shape (n, columns of `_FINDINGS`).
        rejected: by partition the rows that came, and those that were rejected; columns day, raw, rejected.
        reasons: rejected rows by day and reason; columns day, reason, rows.
        reasons_since: first day whose reasons were read.
        trainings, states, decisions: oldest first.
    """

    model: str
    description: str
    primary: str
    tolerated: float
    now: datetime
    latest: Latest = field(default_factory=Latest)
    findings: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_FINDINGS))
    rejected: pl.DataFrame = field(default_factory=pl.DataFrame)
    reasons: pl.DataFrame = field(default_factory=pl.DataFrame)
    reasons_since: str = ""
    trainings: Sequence[Trained] = ()
    states: Sequence[State] = ()
    decisions: Sequence[Decision] = ()

    @property
    def lower_is_better(self) -> bool:
        return self.primary in LOWER_IS_BETTER

    @property
    def today(self) -> str:
        return str(self.now.date())

    def about(self, *subjects: str) -> pl.DataFrame:
        """Findings of some subjects."""
        return self.findings.filter(pl.col("subject").is_in(subjects))

    def record(self, asset: str) -> Record | None:
        return self.latest.get(asset, WHOLE)


def read_history(lake: Lake, model: Model, now: datetime | None = None) -> History:
    """Everything that the report of a model tells. Of a model that was never materialised it is empty."""
    now = now or datetime.now(UTC)
    latest = read_latest(lake, model.name)
    past = decisions(lake, model.name)
    rejected, reasons, since = _rejected(lake, model.name, latest)
    return History(
        model=model.name,
        description=model.spec.description,
        primary=model.spec.primary_metric,
        tolerated=model.spec.monitoring.quality.tolerate,
        now=now,
        latest=latest,
        findings=_findings(lake, model.name, now),
        rejected=rejected,
        reasons=reasons,
        reasons_since=since,
        trainings=_trainings(lake, model.name, past),
        states=LakeJournal(lake, model.name).states(),
        decisions=past,
    )


def days_between(first: str, last: str) -> list[str]:
    """Every day from one to another.

    >>> days_between("2025-02-28", "2025-03-01")
    ['2025-02-28', '2025-03-01']
    """
    begin = date.fromisoformat(first)
    return [str(begin + timedelta(days=each)) for each in range((date.fromisoformat(last) - begin).days + 1)]


def dated(day: str) -> str:
    """A day for people.

    >>> dated("2025-03-01")
    '1 Mar 2025'
    """
    there = date.fromisoformat(day)
    return f"{there.day} {there:%b %Y}"


def _findings(lake: Lake, model: str, now: datetime) -> pl.DataFrame:
    if not lake.exists(model, MONITORING):
        return pl.DataFrame(schema=_FINDINGS)
    columns = [PARTITION, *(each for each in _FINDINGS if each != "day")]
    first = str(now.date() - timedelta(days=MOST_DAYS - 1))
    rows = lake.read(model, MONITORING, days_between(first, str(now.date())), columns=columns)
    return rows.rename({PARTITION: "day"}).cast(pl.Schema(_FINDINGS)).select(list(_FINDINGS)).sort("day")


def _trainings(lake: Lake, model: str, past: Sequence[Decision]) -> list[Trained]:
    """From all records there ever were, not from the latest alone."""
    if not lake.exists(model, RECORDS):
        return []
    columns = ["asset", "rows", "details", "recorded_at"]
    rows = lake.read(model, RECORDS, columns=columns).filter(pl.col("asset").is_in(["trained_model", "metrics"]))
    made: dict[str, Trained] = {}
    asked = [each for each in past if "trained_model" in each.assets]
    before: datetime | None = None
    for row in rows.sort("recorded_at").to_dicts():
        said = msgspec.json.decode(row["details"])
        version = said["version"]
        if row["asset"] == "trained_model" and version not in made:
            at = row["recorded_at"]
            why = [each.reason for each in asked if each.at <= at and (before is None or each.at > before)]
            made[version] = Trained(version, at, row["rows"], why[-1] if why else "")
            before = at
        elif row["asset"] == "metrics" and version in made:
            there = made[version]
            made[version] = Trained(
                version, there.at, there.rows, there.why, said["approved"], tuple(said.get("reasons", ()))
            )
    return list(made.values())


def _rejected(lake: Lake, model: str, latest: Latest) -> tuple[pl.DataFrame, pl.DataFrame, str]:
    counts = [
        {"day": day, "raw": each.details.get("raw", 0), "rejected": each.details.get("rejected", 0)}
        for day, each in list(latest.of("cleaned_data").items())[-MOST_DAYS:]
    ]
    rejected = pl.DataFrame(counts, schema={"day": pl.String, "raw": pl.Int64, "rejected": pl.Int64})
    days: list[str] = []
    rows = 0
    for each in reversed(counts):
        if each["rejected"]:
            rows += each["rejected"]
            if rows > MOST_REJECTED and days:
                break
            days.append(str(each["day"]))
    nothing = pl.DataFrame(schema={"day": pl.String, "reason": pl.String, "rows": pl.Int64})
    if not days:
        return rejected, nothing, ""
    why = pl.List(pl.Struct({"column": pl.String, "check": pl.String}))
    there = lake.read(model, "rejected_rows", days, columns=[PARTITION, "reasons"])
    if there.is_empty():
        return rejected, nothing, ""
    each = there.with_row_index().select(
        "index", pl.col(PARTITION).alias("day"), pl.col("reasons").str.json_decode(why).alias("why")
    )
    told = each.explode("why").unnest("why")
    named = pl.concat_str(pl.col("column").fill_null("row"), pl.lit(": "), pl.col("check").fill_null("")).alias(
        "reason"
    )
    by = told.with_columns(named).group_by("day", "reason").agg(pl.col("index").n_unique().cast(pl.Int64).alias("rows"))
    return rejected, by.sort("day", "reason"), min(days)
