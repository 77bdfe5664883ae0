"""The sensor `<model>_arrivals`: a landed, changed or removed batch refreshes exactly the days that it touches."""

import json

import dagster as dg

from ml_assets.assets.naming import key_of
from ml_assets.automation.attempts import must_wait, that_may_go
from ml_assets.automation.due import DueData, due_data
from ml_assets.automation.reports import unreported
from ml_assets.automation.requests import data_requests
from ml_assets.automation.under_way import busy
from ml_assets.checks import acceptance
from ml_assets.digests import digest_of
from ml_assets.lake import Lake
from ml_assets.ledger import Decision, note
from ml_assets.model import Model
from ml_assets.records import TABLE, Problem, failed
from ml_assets.resources import FeatureStoreResource, LakeResource
from ml_assets.serving.online import OnlineStore
from ml_assets.sources.listing import ListingFailedError


def arrivals_sensor(model: Model) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"{model.name}_arrivals",
        job_name=model.name,
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Refreshes the days whose batches, contract or features changed.",
    )
    def arrivals(
        context: dg.SensorEvaluationContext, lake: LakeResource, feature_store: FeatureStoreResource
    ) -> dg.SensorResult:
        if reason := busy(context.instance, model):
            return dg.SensorResult(skip_reason=reason)
        tables = lake.open()
        due = _due(model, tables, feature_store.online(model))
        requests, waiting = that_may_go(context.instance, model, data_requests(model, due))
        if requests:
            asked = [stretch for stretch in due.stretches() if not must_wait(context.instance, model, stretch.digest)]
            reason = "; ".join(sorted({each.reason for each in asked}))
            assets = sorted({asset for each in asked for asset in each.assets})
            partitions = sum(len(each.partitions) for each in asked)
            note(tables, model.name, Decision("data", "asked for", reason, assets, partitions))
        skip = None if requests else "; ".join([*waiting, *map(str, due.problems.values())]) or "nothing new"
        cursor, events = _reports(context, model, tables, due)
        return dg.SensorResult(run_requests=requests, skip_reason=skip, cursor=cursor, asset_events=events)

    return arrivals


def _due(model: Model, lake: Lake, online: OnlineStore) -> DueData:
    """What is due. A source that cannot be listed is a problem and no error: the tick has more to do."""
    try:
        due = due_data(model, lake, online, certain=False)
        return due_data(model, lake, online) if due.needs else due
    except ListingFailedError as error:
        return DueData(problems={"source": failed(str(error), error.failures, error.at)})


def _reports(
    context: dg.SensorEvaluationContext, model: Model, lake: Lake, due: DueData
) -> tuple[str, list[dg.AssetMaterialization | dg.AssetCheckEvaluation]]:
    """What Dagster has to be told once problems changed or a run was made: these, and days that it does not know.

    The cursor only saves work: without it everything is told once more.
    """
    said = json.loads(context.cursor or "{}")
    problems = digest_of(sorted([name, each.reason, each.lasting] for name, each in due.problems.items()))
    records = lake.version(model.name, TABLE)
    events: list[dg.AssetMaterialization | dg.AssetCheckEvaluation] = []
    if said.get("problems") != problems:
        _note_problems(lake, model, due.problems)
    if said != {"problems": problems, "records": records}:
        # After a run too: its step knows what it held back itself, and not what has settled since.
        events.append(dg.AssetCheckEvaluation(asset_key=key_of(model, "raw_data"), **acceptance(due.problems)))
    if said.get("records") != records:
        events.extend(unreported(context.instance, model, lake))
    return json.dumps({"problems": problems, "records": records}), events


def _note_problems(lake: Lake, model: Model, problems: dict[str, Problem]) -> None:
    if problems:
        note(lake, model.name, Decision("data", "waits", "; ".join(map(str, problems.values()))))
