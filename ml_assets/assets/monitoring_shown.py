"""How `monitoring` is shown: a check for each subject that is judged, what is wrong in a sentence, and plots."""

import base64
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
import polars as pl

from ml_assets.lake import PARTITION, Lake
from ml_assets.ml.monitoring import Finding, findings_of, outcome
from ml_assets.ml.monitoring_plots import draw
from ml_assets.model import Model
from ml_assets.monitored import ASSET, judged_days, monitored
from ml_assets.records import Latest
from ml_assets.spec.operating import Monitoring, Severity

SHOWN_DAYS = 60
MOST_LINES = 20
# The checks, by name: which subjects each is about.
JUDGED = {
    "requests": ("requests", "latency"),
    **{each: (each,) for each in ("availability", "drift", "scores", "unknown", "stale", "rejected", "quality")},
}


def severity_of(subject: str, watch: Monitoring) -> Severity:
    """How bad an alarm is, by the spec."""
    said: dict[str, Severity] = {
        "requests": watch.requests.severity,
        "latency": watch.requests.severity,
        "availability": watch.probe.severity,
        "drift": watch.drift.severity,
        "scores": watch.drift.severity,
        "unknown": watch.unknown.severity,
        "stale": watch.stale.severity,
        "rejected": watch.rejected.severity,
        "quality": watch.quality.severity,
    }
    return said[subject]


def subject_specs(key: dg.AssetKey, watch: Monitoring) -> list[dg.AssetCheckSpec]:
    """A check for each subject that is judged. None blocks: there is nothing behind them to hold back."""
    return [
        dg.AssetCheckSpec(
            name,
            asset=key,
            description=f"{' and '.join(subjects)} of the latest day that can be judged ({severity_of(name, watch)})",
        )
        for name, subjects in JUDGED.items()
    ]


def subject_results(key: dg.AssetKey, model: Model, lake: Lake, latest: Latest) -> Iterator[dg.AssetCheckResult]:
    """The checks over the latest day that is over; of quality, the latest whose outcomes have had their time."""
    over, final = judged_days(latest)
    findings = {day: _findings(lake, model, [day]) for day in {over, final} if day}
    for name, subjects in JUDGED.items():
        day = final if name == "quality" else over
        about = [each for each in findings.get(day, []) if each.subject in subjects] if day else []
        wrong = [each for each in about if each.alarm]
        severe = severity_of(name, model.spec.monitoring) == "error"
        metadata: dict[str, dg.MetadataValue] = {"day": dg.MetadataValue.text(day or "none yet")}
        if about:
            metadata["findings"] = dg.MetadataValue.md(table_md(about))
        yield dg.AssetCheckResult(
            passed=not wrong,
            asset_key=key,
            check_name=name,
            severity=dg.AssetCheckSeverity.ERROR if severe else dg.AssetCheckSeverity.WARN,
            description=f"{day or 'no day is over yet'}: {outcome(about)}",
            metadata=metadata,
        )


def table_md(findings: Sequence[Finding]) -> str:
    """Findings as a small table in Markdown, what is wrong first."""
    lines = ["| version | name | value | interval | limit | rows | |", "|---|---|--:|---|--:|--:|---|"]
    ordered = sorted(findings, key=lambda each: (not each.alarm, -(each.value or 0.0), each.name))
    for each in ordered[:MOST_LINES]:
        around = f"{each.lower:.4g} to {each.upper:.4g}" if each.lower is not None and each.upper is not None else ""
        said = ("**alarm** " if each.alarm else "") + each.note
        numbers = ["" if number is None else f"{number:.4g}" for number in (each.value, each.limit)]
        cells = [each.version, each.name, numbers[0], around, numbers[1], f"{each.rows:,}", said]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    if len(ordered) > MOST_LINES:
        lines.append(f"| | and {len(ordered) - MOST_LINES} more | | | | | |")
    return "\n".join(lines)


def shown(model: Model, lake: Lake, latest: Latest, now: datetime) -> dict[str, dg.MetadataValue]:
    """What the UI shows beside a materialisation: what is wrong, and the last days in plots."""
    known = monitored(latest) or {"day": "no day is over yet", "wrong": "", "quality_day": None, "quality": ""}
    told = {
        "latest_day": dg.MetadataValue.text(f"{known['day']} {known['wrong']}".strip()),
        "latest_quality": dg.MetadataValue.text(f"{known['quality_day'] or ''} {known['quality']}".strip()),
    }
    first = str(now.astimezone(UTC).date() - timedelta(days=SHOWN_DAYS))
    some = [day for day in latest.of(ASSET) if day >= first]
    frame = lake.read(model.name, ASSET, some) if some else pl.DataFrame()
    plots = draw(frame, PARTITION, model.spec.primary_metric, model.name) if frame.height else {}
    return told | {
        f"{name}_by_day": dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})")
        for name, png in plots.items()
    }


def _findings(lake: Lake, model: Model, days: Sequence[str]) -> list[Finding]:
    frame = lake.read(model.name, ASSET, days)
    return findings_of(frame) if frame.height else []
