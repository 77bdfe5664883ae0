"""The page: what a history tells, as charts and short tables."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup

from ml_assets.deployment.rollout import Phase
from ml_assets.report.charts import Line, Mark, Strip, bar_chart, heat_map, line_chart, weekly
from ml_assets.report.headline import headline
from ml_assets.report.history import History, dated, days_between

MOST_LINES = 12  # of a table; the others are counted
FIRST_STRIPS = 12  # of a heat map, the worst ones; the others fold away
MOST_REASONS = 12
PSI_BINS = (0.05, 0.1, 0.2, 0.4)
SHARE_BINS = (0.001, 0.01, 0.05, 0.2)
_LOOKS = 4  # colours and dashes of versions, in turn


def page(history: History) -> str:
    """The page as HTML. Whatever text it is given is escaped."""
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(Path(__file__).with_name("report.html").read_text("utf8"))
    days = _days(history)
    return template.render(
        model=history.model,
        description=history.description,
        made_at=_moment(history.now),
        span=f"{dated(days[0])} to {dated(days[-1])}" if days else "",
        weeks=weekly(days),
        headline=headline(history),
        tiles=_tiles(history),
        quality=_quality(history, days),
        requests=_requests(history, days),
        drift=_drift(history, days),
        rejected=_rejected(history),
        refused=_refused(history, days),
        rollouts=_rollouts(history),
        trainings=_trainings(history),
        waits=_waits(history),
        freshness=_freshness(history),
    )


def _days(history: History) -> list[str]:
    seen = history.findings.get_column("day")
    return [] if seen.is_empty() else days_between(str(seen.min()), str(seen.max()))


def _moment(at: datetime) -> str:
    return f"{at.day} {at:%b %Y %H:%M} UTC"


def _tiles(history: History) -> list[tuple[str, str, str]]:
    """Title, what people look for first, and a line below it."""
    endpoint, judged = history.record("endpoint"), history.record("metrics")
    tiles = []
    if endpoint is not None and endpoint.details["version"] is not None:
        since = datetime.fromisoformat(endpoint.details["since"])
        tiles.append(
            (
                "serves",
                f"version {endpoint.details['version']}",
                f"{endpoint.details['release']}, since {_moment(since)}",
            )
        )
    else:
        tiles.append(("serves", "nothing", "no version was approved and rolled out yet"))
    if judged is not None:
        said = "approved" if judged.details["approved"] else "refused"
        value = (judged.details.get("values") or {}).get(history.primary)
        beside = f"{history.primary} {value:.3f} on held-out rows" if value is not None else ""
        tiles.append((f"verdict on version {judged.details['version']}", said, beside))
    measured = _primary(history).filter(pl.col("value").is_not_null())
    if not measured.is_empty():
        last = measured.sort("day", "rows").row(-1, named=True)
        promised = f", promised {last['limit']:.3f}" if last["limit"] is not None else ""
        early = "; outcomes still arrive" if last["note"].startswith("outcomes") else ""
        tiles.append(
            (
                f"{history.primary} of {dated(last['day'])}",
                f"{last['value']:.3f}",
                f"{last['rows']:,} rows with an outcome{promised}{early}",
            )
        )
    counts = history.about("requests").filter(pl.col("name") == "answered").sort("day")
    if not counts.is_empty():
        last = counts.row(-1, named=True)
        tiles.append(
            (
                "requests today so far" if last["day"] == history.today else f"requests of {dated(last['day'])}",
                f"{last['rows']:,}",
                f"{last['value'] or 0:,.0f} answered",
            )
        )
    return tiles


def _primary(history: History) -> pl.DataFrame:
    return history.about("quality").filter(pl.col("name") == history.primary)


def _by_day(rows: pl.DataFrame, days: Sequence[str], column: str) -> list[Any]:
    """A column by day; of a day with several rows the greatest, of one with none None."""
    known = dict(rows.group_by("day").agg(pl.col(column).max()).iter_rows())
    return [known.get(each) for each in days]


def _alarms(rows: pl.DataFrame, days: Sequence[str]) -> list[bool]:
    wrong = set(rows.filter(pl.col("alarm")).get_column("day"))
    return [each in wrong for each in days]


def _versions(rows: pl.DataFrame) -> list[str]:
    """In the order in which they first appear."""
    return rows.sort("day", maintain_order=True).get_column("version").unique(maintain_order=True).to_list()


def _marks(history: History) -> list[Mark]:
    marks = [
        Mark(
            f"{each.at:%Y-%m-%d}",
            f"v{each.version}",
            "trained",
            f"version {each.version} was trained {_moment(each.at)}",
        )
        for each in history.trainings
    ]
    for each in history.states:
        if each.phase is Phase.PROMOTED:
            text = f"version {each.challenger.version} was promoted {_moment(each.at)}"
            marks.append(Mark(f"{each.at:%Y-%m-%d}", f"v{each.challenger.version}", "promoted", text))
        elif each.phase is Phase.ROLLED_BACK:
            text = f"version {each.challenger.version} was rolled back {_moment(each.at)}"
            marks.append(Mark(f"{each.at:%Y-%m-%d}", f"v{each.challenger.version}", "back", text))
    # Of one version on one day the last thing that happened to it.
    return sorted({(each.day, each.label): each for each in marks}.values(), key=lambda each: each.day)


def _quality(history: History, days: Sequence[str]) -> list[Markup]:
    rows = _primary(history)
    charts = []
    if not rows.filter(pl.col("value").is_not_null()).is_empty():
        lines: list[Line] = []
        tolerated: list[float | None] = [None] * len(days)
        for number, version in enumerate(_versions(rows)):
            own = rows.filter(pl.col("version") == version)
            promise = _by_day(own, days, "limit")
            sign = 1 if history.lower_is_better else -1
            tolerated = [
                there if each is None else each + sign * history.tolerated * abs(each)
                for each, there in zip(promise, tolerated, strict=True)
            ]
            look = f"v{number % _LOOKS}"
            around = _by_day(own, days, "lower"), _by_day(own, days, "upper")
            lines.append(
                Line(f"version {version}", _by_day(own, days, "value"), look, *around, alarms=_alarms(own, days))
            )
            lines.append(Line("promised at release", promise, f"{look} promise", key="promise"))
        if any(each is not None for each in tolerated):
            lines.append(Line(f"tolerated ({history.tolerated:.0%} worse)", tolerated, "tolerated"))
        early = rows.filter(pl.col("note").str.starts_with("outcomes")).get_column("day")
        last = rows.filter(pl.col("value").is_not_null()).sort("day").row(-1, named=True)
        charts.append(
            line_chart(
                f"{history.primary}, by day of the prediction",
                days,
                lines,
                show=lambda value: f"{value:.3g}",
                told=f"From {days[0]} to {days[-1]}; last {last['value']:.3f} on {last['day']}, version "
                f"{last['version']}. Bands are 95 % intervals.",
                marks=_marks(history),
                open_from="" if early.is_empty() else str(early.min()),
            )
        )
    coverage = history.about("coverage")
    if not coverage.is_empty():
        charts.append(
            line_chart(
                "Predictions with a known outcome",
                days,
                [Line("share", _by_day(coverage, days, "value"), "v0")],
                show=_percent,
                told="Share of the day's predictions with an id whose outcome is known by now.",
                least=0.0,
                most=1.0,
            )
        )
    return charts


def _percent(value: float) -> str:
    return (
        f"{value:.0%}"
        if value in (0, 1) or (value >= 0.1 and abs(value * 100 - round(value * 100)) < 1e-6)
        else f"{value * 100:.3g}%"
    )


def _count(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _requests(history: History, days: Sequence[str]) -> list[Markup]:
    charts = []
    counts = history.about("requests")
    if not counts.is_empty():
        kinds = {"answered": "v0", "refused": "v1", "failed": "bad", "lost": "grey"}
        bars = {
            name: (look, _by_day(counts.filter(pl.col("name") == name), days, "value")) for name, look in kinds.items()
        }
        total = {name: sum(each or 0 for each in values) for name, (_, values) in bars.items()}
        charts.append(
            bar_chart(
                "Requests a day",
                days,
                bars,
                show=_count,
                told="In all " + ", ".join(f"{count:,.0f} {name}" for name, count in total.items()) + ".",
                alarms=_alarms(counts, days),
            )
        )
    failed = counts.filter(pl.col("name") == "failed_share")
    if not failed.is_empty():
        limit = _by_day(failed, days, "limit")
        charts.append(
            line_chart(
                "Requests that failed",
                days,
                [
                    Line("share", _by_day(failed, days, "value"), "bad", alarms=_alarms(failed, days)),
                    Line("most", limit, "tolerated"),
                ],
                show=_percent,
                told="Share of the day's requests that the server failed to answer.",
                least=0.0,
            )
        )
    latency = history.about("latency")
    if not latency.is_empty():
        lines = [
            Line(name.removesuffix("_ms"), _by_day(own, days, "value"), look, alarms=_alarms(own, days))
            for name, look in (("p50_ms", "v0"), ("p99_ms", "v1"))
            if not (own := latency.filter(pl.col("name") == name)).is_empty()
        ]
        limit = _by_day(latency, days, "limit")
        if any(each is not None for each in limit):
            lines.append(Line("limit of p99", limit, "tolerated"))
        charts.append(
            line_chart(
                "Latency, logarithmic axis",
                days,
                lines,
                show=lambda value: f"{value:g} ms",
                told="Median and 99th percentile of the time from a request to its answer, on a logarithmic axis.",
                log=True,
            )
        )
    probes = history.about("availability")
    if not probes.is_empty():
        values = _by_day(probes, days, "value")
        limit = _by_day(probes, days, "limit")
        worst = min(each for each in [*values, *limit, 0.98] if each is not None)
        charts.append(
            line_chart(
                "Availability, by probe",
                days,
                [
                    Line("share of good probes", values, "v0", alarms=_alarms(probes, days)),
                    Line("asked for", limit, "tolerated"),
                ],
                show=_percent,
                told="Share of probes that were answered rightly and in time.",
                least=max(0.0, worst - 0.005),
                most=1.0,
            )
        )
    return charts


def _strips(rows: pl.DataFrame, days: Sequence[str], show: Any) -> list[Strip]:
    """One a name, the worst first: most alarms of late, then the highest value of the last two weeks."""
    strips = []
    for (name,), own in rows.partition_by("name", as_dict=True).items():
        values, alarms = _by_day(own, days, "value"), _alarms(own, days)
        lately = max((each for each in values[-14:] if each is not None), default=0.0)
        most = max((each for each in values if each is not None), default=None)
        worst = "" if most is None else show(most)
        strips.append((-sum(alarms[-14:]), -lately, str(name), Strip(str(name), values, alarms, worst)))
    return [each for *_, each in sorted(strips, key=lambda each: each[:3])]


def _drift(history: History, days: Sequence[str]) -> list[dict[str, Any]]:
    """Heat maps, the worst rows of each first, the others folded away."""
    about = (
        (
            "Features",
            "drift",
            "PSI beside the distribution that the release was approved with",
            PSI_BINS,
            lambda value: f"{value:.2f}",
        ),
        (
            "Scores",
            "scores",
            "PSI beside the scores that the release was approved with",
            PSI_BINS,
            lambda value: f"{value:.2f}",
        ),
        (
            "Unknown categories",
            "unknown",
            "share of rows with a category that the training did not have",
            SHARE_BINS,
            _share,
        ),
        ("Stale values", "stale", "share of rows without a fresh value of that table", SHARE_BINS, _share),
    )
    found = []
    for title, subject, unit, bins, show in about:
        rows = history.about(subject)
        strips = _strips(rows, days, show)
        if not strips:
            continue
        first, others = strips[:FIRST_STRIPS], strips[FIRST_STRIPS:]
        found.append(
            {
                "title": title,
                "unit": unit,
                "bins": [f"< {show(bins[0])}", *(f"{show(low)}+" for low in bins)],
                "first": heat_map(title, days, first, bins),
                "others": heat_map(f"{title}, the others", days, others, bins) if others else "",
                "count": len(others),
                "alarms": sum(any(each.alarms) for each in strips),
            }
        )
    return found


def _share(value: float) -> str:
    return f"{value * 100:.2g}%" if value < 1 else "100%"


def _rejected(history: History) -> dict[str, Any]:
    """Rows of the source that broke the contract, by day and by reason."""
    counts, reasons = history.rejected, history.reasons
    said: dict[str, Any] = {
        "raw": 0,
        "rejected": 0,
        "chart": "",
        "reasons": "",
        "table": [],
        "since": history.reasons_since,
    }
    if counts.is_empty():
        return said
    said |= {"raw": counts["raw"].sum(), "rejected": counts["rejected"].sum()}
    daily = [each for each in counts.get_column("day") if each != "all"]
    if daily and said["rejected"]:
        days = days_between(daily[0], daily[-1])
        by = dict(counts.select("day", "rejected").iter_rows())
        said["chart"] = bar_chart(
            "Rejected rows a day, by the day of the event",
            days,
            {"rejected": ("v1", [by.get(each) for each in days])},
            show=_count,
            told=f"{said['rejected']:,} of {said['raw']:,} rows were rejected.",
        )
        most = reasons.group_by("reason").agg(pl.col("rows").sum()).sort("rows", "reason", descending=[True, False])
        strips = []
        for reason, rows in most.head(MOST_REASONS).iter_rows():
            own = dict(reasons.filter(pl.col("reason") == reason).select("day", "rows").iter_rows())
            strips.append(Strip(reason, [own.get(each) for each in days], [False] * len(days), _count(rows)))
        if strips:
            said["reasons"] = heat_map("Rejected rows by reason", days, strips, (2, 10, 100, 1000))
            said["more"] = max(0, most.height - MOST_REASONS)
    elif not reasons.is_empty():
        most = reasons.group_by("reason").agg(pl.col("rows").sum()).sort("rows", descending=True)
        said["table"] = list(most.head(MOST_REASONS).iter_rows())
    return said


def _refused(history: History, days: Sequence[str]) -> dict[str, Any]:
    """Requests that the server refused, by reason."""
    rows = history.about("rejected")
    strips = _strips(rows.filter(pl.col("name") != "all"), days, _share)[:MOST_REASONS]
    counts = history.about("requests").filter(pl.col("name") == "refused")
    refused = counts.get_column("value").sum() or 0
    return {
        "count": f"{refused:,.0f}",
        "asked": f"{counts.get_column('rows').sum():,}",
        "strips": heat_map("Refused requests by reason", days, strips, SHARE_BINS) if strips else "",
        "alarms": sum(_alarms(rows, days)),
    }


def _rollouts(history: History) -> list[dict[str, Any]]:
    """The newest first, with its steps."""
    found: dict[int, dict[str, Any]] = {}
    for each in history.states:
        one = found.setdefault(each.number, {"steps": [], "release": each.challenger.name})
        beside = (
            f"{each.serves.weight} %"
            if each.serves.challenger and not each.serves.shadow
            else "shadow"
            if each.serves.shadow
            else ""
        )
        one["steps"].append({"at": _moment(each.at), "phase": each.phase.value, "share": beside, "reason": each.reason})
        one |= {
            "phase": each.phase.value,
            "level": {"promoted": "good", "rolled back": "bad"}.get(each.phase.value, "open"),
            "from": _moment(each.started),
            "took": _age(each.at - each.started),
            "reason": each.reason,
            "over": each.phase.over,
            "champion": each.champion.name if each.champion else "",
        }
    return list(reversed(found.values()))[:MOST_LINES]


def _trainings(history: History) -> list[dict[str, Any]]:
    """The newest first."""
    promoted = {each.challenger.version for each in history.states if each.phase is Phase.PROMOTED}
    lines = []
    for each in reversed(history.trainings):
        verdict, level = {None: ("not judged yet", "open"), True: ("approved", "good"), False: ("refused", "bad")}[
            each.approved
        ]
        if each.version in promoted:
            verdict = "approved, served"
        lines.append(
            {
                "version": each.version,
                "at": _moment(each.at),
                "rows": f"{each.rows:,}",
                "why": each.why or "by hand",
                "verdict": verdict,
                "level": level,
                "refused": "; ".join(each.refused),
            }
        )
    return lines[:MOST_LINES]


def _waits(history: History) -> list[dict[str, str]]:
    """Decisions not to train, the newest first; the same reason with other numbers is told once."""
    lines, seen = [], set()
    for each in reversed(history.decisions):
        kind = "".join(letter for letter in each.reason if not letter.isdigit())
        if each.subject == "training" and not each.assets and kind not in seen:
            seen.add(kind)
            lines.append({"at": _moment(each.at), "decision": each.decision, "reason": each.reason})
    return lines[:MOST_LINES]


def _freshness(history: History) -> list[dict[str, str]]:
    """For each asset its newest day, and how long ago anything of it was made."""
    order = (
        *("raw_data", "cleaned_data", "outcomes", "features", "online_features", "trained_model", "metrics"),
        *("endpoint", "predictions", "feedback", "monitoring"),
    )
    lines = []
    for asset in order:
        if records := history.latest.of(asset):
            made = max(each.recorded_at for each in records.values())
            partitions = [each for each in records if each != "all"]
            lines.append(
                {
                    "asset": asset.replace("_", " "),
                    "newest": max(partitions) if partitions else "",
                    "age": _age(history.now - made),
                    "made": _moment(made),
                    "rows": _count(sum(each.rows for each in records.values())),
                }
            )
    return lines


def _age(span: timedelta) -> str:
    seconds = max(0, int(span.total_seconds()))
    for size, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "under a minute"
