"""`monitoring`: what is wrong with a day of the endpoint's answers, by the day (UTC) of the request.

A day is held against what the release was approved with and what it promised. It is judged once it is over, and its
quality once its outcomes have had their time.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import msgspec
import polars as pl

import ml_assets
from ml_assets.appended import Appended
from ml_assets.assets.feedback import ASSET as FEEDBACK
from ml_assets.assets.feedback import is_over
from ml_assets.assets.monitoring_shown import shown, subject_results, subject_specs
from ml_assets.assets.naming import FIRST_SERVED_DAY, INPUTS_TAG, SERVED_DAYS, asset_spec, execution, partitions_in
from ml_assets.assets.predictions import ASSET as PREDICTIONS
from ml_assets.assets.refresh import refresh
from ml_assets.assets.report import report
from ml_assets.assets.writing import Made, Slice
from ml_assets.checks import check_results, check_specs
from ml_assets.digests import digest_of
from ml_assets.errors import MlAssetsError, ReleaseError
from ml_assets.lake import Lake
from ml_assets.ml.feedback import OUTCOME
from ml_assets.ml.monitoring import (
    ALL,
    MONITORING,
    NOT_JUDGED,
    Finding,
    Reference,
    alarms_of,
    of_drift,
    of_latency,
    of_probes,
    of_quality,
    of_rejected,
    of_requests,
    of_stale,
    outcome,
    sentence,
    table_of,
    until_it_is_over,
)
from ml_assets.ml.predictions import answer_types
from ml_assets.model import Model
from ml_assets.monitored import ASSET
from ml_assets.probes import TABLE as PROBES
from ml_assets.records import TABLE as RECORDS
from ml_assets.records import Basis, Latest, Record, read_latest
from ml_assets.resources import LakeResource, ServingResource
from ml_assets.serving.bundle import REFERENCE, read_manifest

ROWS_AT_ONCE = 50_000
Read = Callable[[Sequence[str]], pl.DataFrame]
_OF_A_DAY = ("statuses", "lost", "reasons", "p50_ms", "p99_ms", "versions", "not_joinable", "without_features")


def monitoring_bases(model: Model, lake: Lake, latest: Latest, now: datetime) -> dict[str, Basis]:
    """What each day depends on: its own predictions, feedback and probes, and whether it is over."""
    spec = model.spec
    watch = spec.monitoring.model_dump(mode="json")
    terms = digest_of([ml_assets.__version__, watch, spec.primary_metric, spec.task, model.contract.target])
    asked, came, probed = latest.finished(PREDICTIONS), latest.finished(FEEDBACK), probes_by_day(lake, model)
    bases = {}
    for day in sorted({*asked, *probed}):
        over = is_over(day, timedelta(), now)
        if day not in asked and not (over and day >= FIRST_SERVED_DAY):
            continue  # the probes of a day count when it is over: they grow by the minute
        parts = [_said_of(asked.get(day)), _said_of(came.get(day)), probed.get(day) if over else None]
        bases[day] = Basis(digest_of([terms, over, parts]))
    return bases


def _said_of(record: Record | None) -> Any:
    if record is None:
        return None
    return [record.content, {name: record.details[name] for name in (*_OF_A_DAY, "final") if name in record.details}]


def monitoring(model: Model) -> dg.AssetsDefinition:
    spec = asset_spec(
        model,
        ASSET,
        "What is wrong with a day of answers: failures, latency, availability, drift, stale and unknown values, "
        "refusals, and quality beside what the release promised.",
        deps=[PREDICTIONS, FEEDBACK],
        kinds=["polars", "deltalake", "pandera"],
        schema=MONITORING,
        skippable=True,
    ).replace_attributes(partitions_def=SERVED_DAYS)
    checks = [*check_specs(spec.key, MONITORING, blocking=True), *subject_specs(spec.key, model.spec.monitoring)]

    @dg.multi_asset(**execution(model, [spec], checks))
    def step(context: dg.AssetExecutionContext, lake: LakeResource, serving: ServingResource) -> Iterator[Any]:
        tables, now = lake.open(), datetime.now(UTC)
        before = read_latest(tables, model.name)
        releases = serving.target().releases / model.name
        known = monitoring_bases(model, tables, before, now)

        def work(days: list[str]) -> Mapping[str, Made | MlAssetsError]:
            return {day: {ASSET: _day(model, tables, before, releases, day, now)} for day in days}

        by_hand = INPUTS_TAG not in context.run.tags
        nothing = Basis(digest_of("nobody asked"))
        bases = {each: known.get(each, nothing) for each in partitions_in(context) if by_hand or each in known}
        done = refresh(context, model, tables, before, {ASSET: MONITORING}, bases, {}, work)
        page = report(context, model, tables, now) if done.results else {}
        for result in done.results.values():
            result["metadata"] |= shown(model, tables, done.latest, now) | page
        held = [
            *check_results(spec.key, MONITORING, done.failures(ASSET)),
            *subject_results(spec.key, model, tables, done.latest),
        ]
        yield from done.result(spec.key, held)

    return step


def _day(model: Model, lake: Lake, latest: Latest, releases: Path, day: str, now: datetime) -> Slice:
    """The findings of a day."""
    watch, over = model.spec.monitoring, is_over(day, timedelta(), now)
    asked, came = latest.get(PREDICTIONS, day), latest.get(FEEDBACK, day)
    findings: list[Finding] = []
    served = _served(lake, model, day) if asked and asked.rows else pl.DataFrame()
    if asked is not None:
        findings += _of_traffic(model, asked.details)
    if over and (counts := probes_by_day(lake, model).get(day)):
        findings += of_probes(counts["probes"], counts["good"], watch.requests)
    newest = dict(served.sort("last").select("version", "release").iter_rows()) if served.height else {}
    if asked is not None and newest:
        columns = _columns_of(lake, model, day, asked.rows)
        findings += _of_columns(model, lake, releases, day, newest, asked.details.get("without_features", 0), columns)
    if came is not None and came.rows:
        findings += _of_outcomes(model, lake, day, newest, asked, came)
    if not over:
        findings = until_it_is_over(findings)
    details = {
        "alarms": alarms_of(findings),
        "versions": {
            version: {"rows": rows, "alarms": alarms_of([each for each in findings if each.version == version])}
            for version, rows in (
                served.group_by("version").agg(pl.col("rows").sum()).sort("version").iter_rows()
                if served.height
                else ()
            )
        },
        "rows": asked.rows if asked else 0,
        "over": "yes" if over else "no",
        "final": came.details["final"] if came else "no outcomes",
        "wrong": sentence(findings),
        "quality": outcome([each for each in findings if each.subject == "quality"]),
    }
    return Slice(table_of(findings), details)


def _of_traffic(model: Model, said: Mapping[str, Any]) -> list[Finding]:
    """From what `predictions` counted."""
    watch, statuses = model.spec.monitoring, json.loads(said["statuses"])
    p50, p99 = (float(said[each]) if said[each] else None for each in ("p50_ms", "p99_ms"))
    reasons: dict[str, int] = {}
    for each in said["reasons"]:
        if each["status"] < 500:
            reasons[each["reason"]] = reasons.get(each["reason"], 0) + each["len"]
    return [
        *of_requests(statuses, said["lost"], watch.requests),
        *of_latency(p50, p99, statuses.get("200", 0), watch.requests),
        *of_rejected(reasons, sum(statuses.values()), watch.rejected),
    ]


def _columns_of(lake: Lake, model: Model, day: str, rows: int) -> Read:
    """What reads columns of a day of `predictions`: of many rows one at a time is in memory, of a few all are."""
    if rows > ROWS_AT_ONCE:
        return lambda columns: lake.read(model.name, PREDICTIONS, [day], columns=columns)
    return lake.read(model.name, PREDICTIONS, [day]).select


def _of_columns(
    model: Model,
    lake: Lake,
    releases: Path,
    day: str,
    newest: Mapping[str, str],
    lacking: int,
    read: Read,
) -> list[Finding]:
    """From what was asked and answered.

    Args:
        newest: of each version the release that answered last.
        lacking: rows of which nobody knows what the model saw.
        read: gives columns of the day.
    """
    watch = model.spec.monitoring
    missing = dict(read(["missing"]).get_column("missing").value_counts().iter_rows())
    references, absent = {}, []
    for version, release in newest.items():
        try:
            held = _reference(releases / release)
        except ReleaseError as error:
            note = f"{NOT_JUDGED}: {error}"
            absent += [Finding(subject, ALL, None, 0, version, note=note) for subject in ("drift", "scores")]
            continue
        references[version] = held
        if lacking:  # their columns are empty, which is no drift
            references[version] = replace(held, features={})
            note = f"{NOT_JUDGED}: of {lacking:,} rows it is not known what the model saw"
            absent.append(Finding("drift", ALL, None, lacking, version, note=note))
    return [
        *of_stale(missing, list(model.views), watch.stale),
        *of_drift(
            references,
            read,
            list(lake.types(model.name, PREDICTIONS)),
            model.spec.task,
            date.fromisoformat(day).isoweekday(),
            watch.drift,
            watch.unknown,
        ),
        *absent,
    ]


def _of_outcomes(
    model: Model, lake: Lake, day: str, newest: Mapping[str, str], asked: Record | None, came: Record
) -> list[Finding]:
    target, task = model.contract.target, model.spec.task
    columns = ["version", *answer_types(task), OUTCOME + target]
    promised = promises(lake, model)
    return of_quality(
        lake.read(model.name, FEEDBACK, [day], columns=columns),
        asked.details["versions"] if asked else {},
        {version: promised.get(release.rpartition("-")[2], {}) for version, release in newest.items()},
        target=target,
        task=task,
        primary=model.spec.primary_metric,
        final=came.details["final"],
        watch=model.spec.monitoring.quality,
    )


def _served(lake: Lake, model: Model, day: str) -> pl.DataFrame:
    """For each version and release that answered on a day how many rows, and when last."""
    rows = lake.read(model.name, PREDICTIONS, [day], columns=["version", "release", "received_at"])
    return rows.group_by("version", "release").agg(pl.len().alias("rows"), pl.col("received_at").max().alias("last"))


def _reference(folder: Path) -> Reference:
    """What a release was approved with.

    Raises:
        ReleaseError: if it is not there any more, or damaged.
    """
    if not folder.is_dir():
        raise ReleaseError(f"the release {folder.name} is not there any more")
    manifest = read_manifest(folder)
    held = msgspec.json.decode((folder / REFERENCE).read_bytes())
    names = [str(each) for each in manifest.classes] if manifest.task == "multiclass" else ["score"]
    return Reference(held["features"], dict(zip(names, held["scores"], strict=True)), held.get("days"))


def probes_by_day(lake: Lake, model: Model) -> dict[str, dict[str, int]]:
    """For each day that the endpoint was probed on, how many probes found what."""
    return _probes.of(lake, model.name, PROBES)


_COUNTED = ("probes", "good", "dead", "hanging", "wrong", "slow")


def _with_probes(known: dict[str, dict[str, int]], rows: pl.DataFrame) -> dict[str, dict[str, int]]:
    days = rows.group_by(pl.col("from").dt.strftime("%Y-%m-%d").alias("day")).agg(pl.col(*_COUNTED).sum())
    more = {each.pop("day"): each for each in days.to_dicts()}
    return known | {
        day: {name: counts[name] + known.get(day, {}).get(name, 0) for name in _COUNTED} for day, counts in more.items()
    }


_probes: Appended[dict[str, dict[str, int]]] = Appended({}, _with_probes)


def promises(lake: Lake, model: Model) -> dict[str, dict[str, float]]:
    """The metrics on held-out rows that each verdict was given for, by the digest in its release's name."""
    return _promises.of(lake, model.name, RECORDS)


def _with_promises(known: dict[str, dict[str, float]], rows: pl.DataFrame) -> dict[str, dict[str, float]]:
    details = rows.filter(pl.col("asset") == "metrics").sort("recorded_at").get_column("details")
    judged = [msgspec.json.decode(each) for each in details]
    return known | {each["verdict_digest"][:12]: each["values"] for each in judged if "verdict_digest" in each}


_promises: Appended[dict[str, dict[str, float]]] = Appended({}, _with_promises)
