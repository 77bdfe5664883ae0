"""The sensor `<model>_probe`: asks what serves the model, every `monitoring.probe.every`, and keeps what was found."""

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg

from ml_assets.deployment.local_rollout import LocalRollout
from ml_assets.deployment.probing import Patience, probe_local
from ml_assets.deployment.rollout import State as Rollout
from ml_assets.deployment.targets import Target
from ml_assets.durations import parse_duration
from ml_assets.errors import TargetUnavailableError
from ml_assets.lake import Lake
from ml_assets.model import Model
from ml_assets.probes import Probe, Watch, append_row, state_of
from ml_assets.resources import LakeResource, ServingResource
from ml_assets.rollouts import LakeJournal


def probe_sensor(model: Model) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"{model.name}_probe",
        minimum_interval_seconds=1,  # a look costs little; the spec says how often it asks
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks what serves for its health and a known prediction.",
    )
    def probe(context: dg.SensorEvaluationContext, lake: LakeResource, serving: ServingResource) -> dg.SensorResult:
        tables = lake.open()
        watch = _kept(context.cursor, model, tables)
        if not watch.due(datetime.now(UTC), parse_duration(model.spec.monitoring.probe.every)):
            return dg.SensorResult(skip_reason=_told(watch), cursor=watch.to_json())
        watch, why_not = probe_once(model, tables, serving, watch)
        return dg.SensorResult(skip_reason=why_not or _told(watch), cursor=watch.to_json())

    return probe


def probe_once(model: Model, lake: Lake, serving: ServingResource, watch: Watch) -> tuple[Watch, str]:
    """Probe what serves a model, and write a row of the table if it is time for one.

    Returns:
        What is to be kept until the next time, and why nothing was asked, if so.
    """
    names = may_serve(LakeJournal(lake, model.name).states())
    if not names:
        return watch, "no release serves yet"
    try:
        found = _ask(model, serving.target_of(model), names)
    except TargetUnavailableError as error:
        return watch, str(error)
    if found is None:
        return watch, "no server is said to run: it was stopped on purpose, or never started"
    watch, row = watch.after(found)
    if row is not None:
        append_row(lake, model.name, row)
    return watch, ""


def may_serve(states: Sequence[Rollout]) -> frozenset[str]:
    """Names of the releases of which any may answer: of a rollout that is under way both, else the one that has all
    traffic. None before a first release got there.
    """
    if not states:
        return frozenset()
    last = states[-1]
    sides = (last.owner,) if last.phase.over else (last.champion, last.challenger if last.champion else None)
    return frozenset(each.name for each in sides if each is not None)


def _ask(model: Model, target: Target, names: frozenset[str]) -> Probe | None:
    watch = model.spec.monitoring.probe
    patience = Patience(parse_duration(watch.timeout).total_seconds(), watch.slow_ms / 1000)
    if isinstance(target, LocalRollout):
        return probe_local(target.server, model.name, names, patience)
    from ml_assets.deployment.kubernetes.namespaced import Namespaced
    from ml_assets.deployment.probing_elsewhere import probe_cluster, probe_sagemaker
    from ml_assets.deployment.sagemaker import SageMakerTarget

    if isinstance(target, SageMakerTarget):
        return probe_sagemaker(target, names, patience)
    assert isinstance(target, Namespaced)
    return probe_cluster(target, names, patience)


def _kept(cursor: str | None, model: Model, lake: Lake) -> Watch:
    """What was kept; without it, or if it is of another version, what the table says."""
    try:
        return Watch.from_json(cursor or "")
    except ValueError:
        return Watch.of(state_of(lake, model.name))


def _told(watch: Watch) -> str:
    if watch.last is None:
        return "not probed yet"
    took = f" in {watch.ms[-1]:.1f} ms" if watch.ms else ""
    reason = f" ({watch.reason})" if watch.last_found != "good" and watch.reason else ""
    return f"{watch.state or 'not known yet'}; last probe {watch.last_found}{took} at {watch.last:%H:%M:%S} UTC{reason}"
