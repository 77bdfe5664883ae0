"""What the rollout of a model needs of its spec, its registry and its feedback; no asset of its own."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ml_assets.assets.feedback import ASSET as FEEDBACK
from ml_assets.deployment.decision import Limits, Matured
from ml_assets.deployment.matured import matured_by_step
from ml_assets.deployment.rollout import Plan, State, previous_champion
from ml_assets.deployment.targets import Release
from ml_assets.durations import parse_duration
from ml_assets.errors import EndpointError
from ml_assets.lake import Lake
from ml_assets.model import Model
from ml_assets.registry import Registry
from ml_assets.serving.bundle import REFERENCE, read_manifest

BACK_TAG = "ml_assets/rollback"  # of a run: the release that a person wants back, or `PREVIOUS`
PREVIOUS = "previous"


@dataclass(frozen=True)
class Aliases:
    """The registry of one model, as a rollout asks it."""

    registry: Registry
    model: str

    def champion(self) -> str | None:
        return self.registry.champion(self.model)

    def set_champion(self, version: str | None) -> None:
        self.registry.set_champion(self.model, version)


def plan_of(model: Model) -> Plan:
    """How a challenger of this model gets its traffic."""
    said, tolerated = model.spec.endpoint, model.spec.endpoint.tolerate
    on_sagemaker = said.target == "sagemaker"
    # Where SageMaker moves the traffic there are no steps of ours. Without captured data nobody sees the scores, and of
    # pods nobody sees values, for which there are no edges that suit every model.
    steps = () if on_sagemaker and said.sagemaker.traffic != "weights" else tuple(said.canary)
    blind = (on_sagemaker and not said.sagemaker.capture) or (
        said.target == "kubernetes" and model.spec.task == "regression"
    )
    return Plan(
        steps=steps,
        bake=parse_duration(said.bake),
        requests=said.min_requests,
        limit=parse_duration(said.limit),
        undecided=said.undecided,
        limits=Limits(
            false_alarms=tolerated.false_alarms,
            errors=tolerated.errors,
            p99_seconds=tolerated.p99_ms / 1000 if tolerated.p99_ms else None,
            scores=tolerated.scores,
            quality=tolerated.quality,
            to_promote=("errors",) if blind else ("errors", "scores"),
        ),
    )


def asked_back(model: Model, name: str, states: Sequence[State]) -> Release:
    """The release that a person wants back.

    Args:
        name: of a release or a version that served before; `PREVIOUS`: the one before the one that serves.

    Raises:
        EndpointError: naming those that there are.
    """
    if name == PREVIOUS:
        under_way = states[-1].champion if states and not states[-1].phase.over else None
        found = under_way or previous_champion(states)
    else:
        served = {each.owner for each in states if each.phase.over and each.owner}
        found = next((each for each in served if name in (each.name, each.version)), None)
    if found is None:
        before = sorted({each.owner.name for each in states if each.phase.over and each.owner})
        raise EndpointError(
            f"{model.name}: nothing served before that could be put back"
            if name == PREVIOUS
            else f"{model.name}: {name!r} never served; there were {', '.join(before) or 'none'}"
        )
    return found


def matured(
    model: Model, lake: Lake, states: Callable[[], Sequence[State]], releases: Path
) -> Callable[[State], Sequence[Matured]]:
    """What is known by now of the predictions of each step of a rollout.

    Args:
        states: gives the journal as it is then.
        releases: folder of the model's releases.
    """

    def steps_of(state: State) -> Sequence[Matured]:
        sides = [each.name for each in (state.champion, state.challenger) if each]
        days = (datetime.now(UTC).date() - state.started.astimezone(UTC).date()).days
        since = [(state.started.date() + timedelta(days=each)).isoformat() for each in range(days + 1)]
        rows = lake.read(model.name, FEEDBACK, since)
        if rows.is_empty() or len(sides) < 2:
            return ()
        return matured_by_step(
            states(),
            rows,
            target=model.contract.target,
            task=model.spec.task,
            classes={name: read_manifest(releases / name).classes for name in sides},
            scale=_scale(releases / sides[0]),
        )

    return steps_of


def _scale(release: Path) -> float:
    """Of regression, the error that is half of the worst: a tenth of the range of most of a release's values."""
    edges = json.loads((release / REFERENCE).read_bytes())["scores"][0].get("edges", [])
    return float(edges[-1] - edges[0]) / 10 if len(edges) > 1 and edges[-1] > edges[0] else 1.0
