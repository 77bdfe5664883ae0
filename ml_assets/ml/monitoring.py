"""What a day of a served model is held against, finding by finding: pure functions of its counts, columns and outcomes.

Shares are judged by their exact interval, so that a few unlucky requests are no alarm; drift and quality need rows.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import pandera.polars as pa
import polars as pl

from ml_assets.errors import MonitoringError
from ml_assets.ml.bootstrap import LEVEL, intervals
from ml_assets.ml.drift import LEAST_DAYS, Drift, Spread, compare, judge, on_weekday
from ml_assets.ml.evaluation import measure
from ml_assets.ml.feedback import OUTCOME, scored
from ml_assets.ml.predictions import FEATURE
from ml_assets.spec.base import LOWER_IS_BETTER, Task
from ml_assets.spec.operating import DriftWatch, QualityWatch, RequestsWatch, ShareWatch

SUBJECTS = (
    *("requests", "latency", "availability", "drift", "scores", "unknown"),
    *("stale", "rejected", "coverage", "quality"),
)
ALL = "all"  # the name of a share over all reasons
NOT_JUDGED = "not judged"  # how the note of such a finding begins
FEW_ANSWERS = 100  # below which the 99th percentile is the slowest answer

Read = Callable[[Sequence[str]], pl.DataFrame]


@dataclass(frozen=True)
class Finding:
    """One line of the table `monitoring`.

    Attributes:
        version: "" where all versions are meant.
        value: what was measured, with its 95 % interval from `lower` to `upper`; None where it cannot be.
        limit: what it is held against.
        rows: on how many rows, requests or probes it was measured.
        alarm: whether it is wrong beyond chance; False where nothing is judged.
        note: one sentence for people, or nothing.
    """

    subject: str
    name: str
    value: float | None
    rows: int
    version: str = ""
    lower: float | None = None
    upper: float | None = None
    limit: float | None = None
    p_value: float | None = None
    alarm: bool = False
    note: str = ""


_NUMBERS = ("value", "lower", "upper", "limit", "p_value")
MONITORING = pa.DataFrameSchema(
    {
        "version": pa.Column(pl.String, description="Empty where all versions are meant"),
        "subject": pa.Column(pl.String, pa.Check.isin(SUBJECTS)),
        "name": pa.Column(pl.String, description="Of a feature, class, metric, view, reason or count"),
        "value": pa.Column(pl.Float64, nullable=True),
        "lower": pa.Column(pl.Float64, nullable=True, description="Of the 95 % interval"),
        "upper": pa.Column(pl.Float64, nullable=True),
        "limit": pa.Column(pl.Float64, nullable=True, description="What the value is held against"),
        "p_value": pa.Column(pl.Float64, nullable=True),
        "rows": pa.Column(pl.Int64, pa.Check.ge(0), description="Rows, requests or probes that it was measured on"),
        "alarm": pa.Column(pl.Boolean),
        "note": pa.Column(pl.String),
    },
    unique=["version", "subject", "name"],
    description="What was found of a day, and what is wrong beyond chance.",
)


def table_of(findings: Sequence[Finding]) -> pl.DataFrame:
    """The findings as rows of `MONITORING`."""
    schema = {name: column.dtype.type for name, column in MONITORING.columns.items()}
    frame = pl.DataFrame([asdict(each) for each in findings], schema_overrides=schema, infer_schema_length=None)
    if not findings:
        return pl.DataFrame(schema=schema)
    return frame.select(list(schema)).with_columns(pl.col(*_NUMBERS).fill_nan(None))


def findings_of(frame: pl.DataFrame) -> list[Finding]:
    """What `table_of` was given."""
    return [Finding(**row) for row in frame.select(each.name for each in fields(Finding)).to_dicts()]


def alarms_of(findings: Sequence[Finding]) -> dict[str, list[str]]:
    """By subject the names of what is wrong, of all versions together."""
    alarms: dict[str, set[str]] = {}
    for each in findings:
        if each.alarm:
            alarms.setdefault(each.subject, set()).add(each.name)
    return {subject: sorted(alarms[subject]) for subject in SUBJECTS if subject in alarms}


def sentence(findings: Sequence[Finding]) -> str:
    """What is wrong, for people."""
    wrong = [each.note for each in findings if each.alarm]
    more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    return "; ".join(wrong[:5]) + more if wrong else "nothing is wrong"


def outcome(about: Sequence[Finding]) -> str:
    """What was found of one subject, for people."""
    if any(each.alarm for each in about):
        return sentence(about)
    if not about:
        return f"{NOT_JUDGED}: there was nothing of it"
    notes = sorted({each.note for each in about if each.note.startswith(NOT_JUDGED)})
    if notes and not any(each.limit is not None and each.value is not None and not each.note for each in about):
        return notes[0]
    return "nothing is wrong"


def until_it_is_over(findings: Sequence[Finding]) -> list[Finding]:
    """The same, nothing of it judged: half a day is not like a whole one, and whoever looks often finds something."""
    said = "the day is not over"
    return [replace(each, alarm=False, note=said) if each.limit is not None else each for each in findings]


def share_interval(count: int, rows: int) -> tuple[float, float]:
    """The exact interval of a share (Clopper and Pearson 1934, Biometrika 26:4), which holds for a few rows too.

    >>> share_interval(0, 0)
    (0.0, 1.0)
    """
    from scipy.special import betaincinv

    tail = (1 - LEVEL) / 2
    lower = float(betaincinv(count, rows - count + 1, tail)) if count else 0.0
    upper = float(betaincinv(count + 1, rows - count, 1 - tail)) if count < rows else 1.0
    return lower, upper


def of_requests(statuses: Mapping[str, int], lost: int, watch: RequestsWatch) -> list[Finding]:
    """Counts by what became of requests, and the share that failed.

    Args:
        statuses: requests by HTTP status. From 500 on the server failed; below that and not 200 it refused.
        lost: requests that the log lost; nobody knows what became of them.
    """
    answered = statuses.get("200", 0)
    failed = sum(count for status, count in statuses.items() if int(status) >= 500)
    total = sum(statuses.values())
    counts = {"answered": answered, "refused": total - answered - failed, "failed": failed, "lost": lost}
    found = [Finding("requests", name, float(count), total) for name, count in counts.items()]
    share = _at_most("requests", "failed_share", failed, total, watch.failed, "of the requests failed")
    return [*found, share]


def of_latency(p50: float | None, p99: float | None, answered: int, watch: RequestsWatch) -> list[Finding]:
    """Milliseconds from the first byte of a request to its answer; none where nobody measured them."""
    if p50 is None or p99 is None:
        return []
    most, enough = watch.p99_ms, answered >= FEW_ANSWERS
    alarm = most is not None and enough and p99 > most
    note = f"p99 is {p99:.1f} ms, more than {most:g}" if alarm else "" if enough else _few(answered, FEW_ANSWERS)
    return [
        Finding("latency", "p50_ms", p50, answered),
        Finding("latency", "p99_ms", p99, answered, limit=most, alarm=alarm, note=note if most is not None else ""),
    ]


def of_probes(probes: int, good: int, watch: RequestsWatch) -> list[Finding]:
    """The share of probes that were answered rightly and in time. As many may not be as requests may fail."""
    if not probes:
        return []
    lower, upper = share_interval(good, probes)
    share, least = good / probes, 1 - watch.failed
    alarm = upper < least
    note = f"{probes - good:,} of {probes:,} probes were not answered rightly and in time" if alarm else ""
    return [Finding("availability", "probe", share, probes, "", lower, upper, least, None, alarm, note)]


def of_rejected(reasons: Mapping[str, int], requests: int, watch: ShareWatch) -> list[Finding]:
    """The share of requests that were refused, in all and by reason."""
    if not requests:
        return []
    refused = sum(reasons.values())
    found = [_at_most("rejected", ALL, refused, requests, watch.most, "of the requests were refused")]
    for reason, count in sorted(reasons.items()):
        lower, upper = share_interval(count, requests)
        found.append(Finding("rejected", reason, count / requests, requests, "", lower, upper))
    return found


def of_stale(missing: Mapping[str | None, int], views: Sequence[str], watch: ShareWatch) -> list[Finding]:
    """For each side table and group the share of rows that got no value of it, or none that was fresh.

    Args:
        missing: how many rows had each value of the column `missing`: by view why there was nothing, as JSON.
        views: those that the model looks up.
    """
    rows, lacking = sum(missing.values()), dict.fromkeys(views, 0)
    for text, count in missing.items():
        for view in json.loads(text) if text else ():
            lacking[view] = lacking.get(view, 0) + count
    if not rows:
        return []
    return [
        _at_most("stale", view, count, rows, watch.most, f"of the rows had no fresh value of {view}")
        for view, count in sorted(lacking.items())
    ]


@dataclass(frozen=True)
class Reference:
    """What a version was approved with.

    Attributes:
        features: distribution of each feature, as `reference_of` gives it.
        scores: the same of its scores, by what they are called: a class, or `score`.
        days: of `features` and `scores` how much days differ, as `spread_of` gives it; None: nothing is known of days.
    """

    features: Mapping[str, Mapping[str, Any]]
    scores: Mapping[str, Mapping[str, Any]]
    days: Mapping[str, Mapping[str, Any]] | None = None

    def spread(self, subject: str, by: str) -> Spread | None:
        """How much days of its features (subject `drift`) or `scores` differ; None if it had too few of them."""
        columns = self.features if subject == "drift" else self.scores
        said = self._said_of_days(subject, by)
        if said is None or "maxima" not in said or not columns:
            return None
        usual = zip(columns, said["usual"], strict=True)
        return Spread({name: each for name, each in usual if each is not None}, said["maxima"])

    def lacks_days(self, subject: str, by: str) -> str:
        """Why nothing is required of days, for people; empty if something is, or if there are no days at all."""
        said = self._said_of_days(subject, by)
        if said is None or "maxima" in said:
            return ""
        return f"judged as if its rows were independent: the release knows {said['days']} days, {LEAST_DAYS} are needed"

    def _said_of_days(self, subject: str, by: str) -> Mapping[str, Any] | None:
        return None if self.days is None else self.days["features" if subject == "drift" else subject][by]


def of_drift(
    references: Mapping[str, Reference],
    read: Read,
    columns: Sequence[str],
    task: Task,
    weekday: int,
    watch: DriftWatch,
    unknown: ShareWatch,
) -> list[Finding]:
    """Features and scores of each version beside those that it was approved with, all judged together.

    One feature is in memory at a time.

    Args:
        read: some columns of the day's predictions, in one order.
        columns: those that there are.
        weekday: of the day, 1 (Monday) to 7.
    """
    found: list[tuple[str, str, Drift]] = []
    failed: list[Finding] = []

    def look(subject: str, version: str, reference: Mapping[str, Any], values: pl.Series) -> None:
        try:
            held = on_weekday(reference, weekday) if watch.by == "weekday" else reference
            found.append((subject, version, compare(held, _typed(values, held))))
        except MonitoringError as error:
            failed.append(Finding(subject, values.name, None, len(values), version, note=f"{NOT_JUDGED}: {error}"))

    for name in sorted({name for each in references.values() for name in each.features}):
        if FEATURE + name in columns:
            rows = read(["version", FEATURE + name]).rename({FEATURE + name: name})
            for version, reference in references.items():
                if name in reference.features:
                    values = rows.filter(pl.col("version") == version).get_column(name)
                    look("drift", version, reference.features[name], values)
    for version, reference in references.items():
        for values in _scores(version, reference, read, task):
            look("scores", version, reference.scores[values.name], values)
    spreads = {
        (subject, version): reference.spread(subject, watch.by)
        for version, reference in references.items()
        for subject in ("drift", "scores")
    }
    judged = judge(
        [drift for *_, drift in found],
        alarms_per_month=watch.alarms_per_month,
        least=watch.least,
        spreads=[spreads[subject, version] for subject, version, _ in found],
    )
    drifts = [_drifted(subject, version, each) for (subject, version, _), each in zip(found, judged, strict=True)]
    texts = [
        _unknown(version, drift, unknown)
        for subject, version, drift in found
        if subject == "drift" and references[version].features[drift.name]["kind"] == "text"
    ]
    without_days = [
        Finding(subject, ALL, None, drift.rows, version, note=note)
        for (subject, version), drift in {each[:2]: each[2] for each in found if each[2].judged}.items()
        if (note := references[version].lacks_days(subject, watch.by))
    ]
    return [*drifts, *texts, *failed, *without_days]


def of_quality(
    rows: pl.DataFrame,
    classes: Mapping[str, list[Any]],
    promises: Mapping[str, Mapping[str, float]],
    *,
    target: str,
    task: Task,
    primary: str,
    final: str,
    watch: QualityWatch,
) -> list[Finding]:
    """How many predictions have an outcome by now, and how good those of each version were, beside its promise.

    Args:
        rows: of the table `feedback`.
        classes: of each version, in the order of its scores.
        promises: of each version its metrics on held-out rows, by which its release was approved.
        final: `yes` if the outcomes have had their time, else when they will have. Until then nothing is judged:
            early outcomes are not like the others.
    """
    if rows.is_empty():
        return []
    known = rows.drop_nulls(OUTCOME + target)
    lower, upper = share_interval(known.height, rows.height)
    early = (
        "" if final == "yes" else f"outcomes have their time until {final.removeprefix('from ').removesuffix(' on')}"
    )
    share = known.height / rows.height
    found = [Finding("coverage", "outcomes", share, rows.height, "", lower, upper, note=early)]
    for (version,), some in sorted(known.partition_by("version", as_dict=True).items()):
        found += _measured(
            str(version), some, classes, promises.get(str(version), {}), target, task, primary, early, watch
        )
    return found


def _measured(
    version: str,
    rows: pl.DataFrame,
    classes: Mapping[str, list[Any]],
    promise: Mapping[str, float],
    target: str,
    task: Task,
    primary: str,
    early: str,
    watch: QualityWatch,
) -> list[Finding]:
    answers = scored(rows, rows.get_column(OUTCOME + target), task, classes.get(version, []))
    if answers is None:
        return [
            Finding(
                "quality",
                primary,
                None,
                rows.height,
                version,
                note=f"{NOT_JUDGED}: the classes of this version are not known",
            )
        ]
    values = {name: value for name, value in measure(answers).items() if math.isfinite(value)}
    around = intervals(answers, list(values))
    found = []
    for name, value in values.items():
        lower, upper = around[name]
        promised, alarm, note = promise.get(name), False, early
        if name == primary and not early:
            if promised is None:
                note = f"{NOT_JUDGED}: what its release promised is not known"
            elif rows.height < watch.min_rows:
                note = _few(rows.height, watch.min_rows)
            elif alarm := _broken(name, lower, upper, promised, watch.tolerate):
                note = (
                    f"{name} of version {version} is {value:.3f} ({lower:.3f} to {upper:.3f}), worse than the promised "
                    f"{promised:.3f} by more than {watch.tolerate:.0%}"
                )
        found.append(
            Finding("quality", name, value, rows.height, version, lower, upper, promised, alarm=alarm, note=note)
        )
    return found


def _broken(metric: str, lower: float, upper: float, promised: float, tolerate: float) -> bool:
    """Whether even the better end of the interval is worse than what is tolerated. An unknown interval is not."""
    margin = tolerate * abs(promised)
    return lower > promised + margin if metric in LOWER_IS_BETTER else upper < promised - margin


def _at_most(subject: str, name: str, count: int, rows: int, most: float, what: str) -> Finding:
    """A share that has a limit; an alarm if it is above beyond doubt."""
    if not rows:
        return Finding(subject, name, None, 0, limit=most)
    lower, upper = share_interval(count, rows)
    share, alarm = count / rows, lower > most
    note = f"{share:.1%} {what}, more than {most:.1%}" if alarm else ""
    return Finding(subject, name, share, rows, "", lower, upper, most, None, alarm, note)


def _unknown(version: str, drift: Drift, watch: ShareWatch) -> Finding:
    if math.isnan(drift.unseen):
        note = f"{NOT_JUDGED}: its release does not name all categories"
        return Finding("unknown", drift.name, None, drift.rows, version, note=note)
    count = round(drift.unseen * drift.rows)
    what = f"of the rows of version {version} have a {drift.name} that its training did not"
    return replace(_at_most("unknown", drift.name, count, drift.rows, watch.most, what), version=version)


def _drifted(subject: str, version: str, drift: Drift) -> Finding:
    note = f"{NOT_JUDGED}: {drift.note}" if not drift.judged else drift.note
    if drift.alarm:
        note = f"{drift.name} drifted: PSI {drift.psi:.2f} beside what version {version} was approved with"
    # Without a value it is NaN, which the table has as null.
    numbers = [None if math.isnan(each) else each for each in (drift.psi, drift.p_value)]
    return Finding(
        subject, drift.name, numbers[0], drift.rows, version, None, None, drift.limit, numbers[1], drift.alarm, note
    )


def _scores(version: str, reference: Reference, read: Read, task: Task) -> list[pl.Series]:
    """The scores of a version, each called as its reference does."""
    column = {"regression": "value", "binary": "score", "multiclass": "scores"}[task]
    own = read(["version", column]).filter(pl.col("version") == version).get_column(column)
    if task != "multiclass":
        return [own.alias(name) for name in reference.scores]
    by_class = own.str.json_decode(pl.Struct(dict.fromkeys(reference.scores, pl.Float64)))
    return [by_class.struct.field(name).alias(name) for name in reference.scores]


def _typed(values: pl.Series, reference: Mapping[str, Any]) -> pl.Series:
    """Of two versions that do not agree on a feature's type the table has texts."""
    return values.cast(pl.String if reference["kind"] == "text" else pl.Float64, strict=False)


def _few(rows: int, needed: int) -> str:
    return f"{NOT_JUDGED}: {rows:,} rows, {needed:,} are needed"
