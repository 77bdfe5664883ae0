"""What is due of a model, made by its assets' own steps without a Dagster run around them, in a third of its time.

For tests that refresh some hundred times. All else is as ever: survey, what is due, stretches, steps, tables, records.
"""

import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg

from ml_assets.assets import build_assets, data_assets
from ml_assets.assets.captured import captured_of
from ml_assets.assets.feedback import feedback
from ml_assets.assets.handover import forget
from ml_assets.assets.monitoring import monitoring
from ml_assets.assets.naming import INPUTS_TAG
from ml_assets.assets.predictions import predictions
from ml_assets.automation.due import due_data
from ml_assets.automation.due_feedback import due_feedback
from ml_assets.lake import Lake
from ml_assets.model import Model
from ml_assets.resources import LakeResource, ServingResource
from ml_assets.settings import JOURNAL


@dataclass
class _Context:
    """What steps ask of their context: which days, and whether a sensor asked for them."""

    assets_def: dg.AssetsDefinition
    partition_keys: list[str]
    run: Any
    run_id: str = "of-a-test"
    has_partition_key_range: bool = True
    has_partition_key: bool = False
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("ml_assets_tests.steps"))

    def add_asset_metadata(self, *_: Any, **__: Any) -> None: ...

    def log_event(self, event: Any) -> None: ...


def refresh(model: Model, lake: Lake, assets: Collection[str] | None = None, *, apart: bool = False) -> list[list[str]]:
    """A tick of the sensor, and the runs that it asks for.

    Args:
        assets: make no others.
        apart: each step as in a process of its own, where nothing is handed on by the step before.

    Returns:
        The stretches of days that were due.

    Raises:
        dagster.Failure: if a step refuses a day, as in a run.
    """
    stretches = due_data(model, lake).stretches()
    data = set(data_assets(model) if assets is None else assets)
    steps = [each for each in build_assets(model) if {key.path[-1] for key in each.keys} <= data]
    for stretch in stretches:
        for step in steps:
            if {key.path[-1] for key in step.keys} & set(stretch.assets):
                if apart:
                    forget()
                run = SimpleNamespace(run_id="of-a-test", tags={INPUTS_TAG: stretch.digest})
                make(_Context(step, stretch.partitions, run), lake)
    return [each.partitions for each in stretches]


def refresh_feedback(model: Model, lake: Lake, home: Path) -> dict[str, list[str]]:
    """A tick of the sensor of feedback, and the runs that it asks for.

    Args:
        home: below it lie the journal and the releases.

    Returns:
        For each due day what was made of it.
    """
    serving = ServingResource(home=str(home), releases=str(home / "releases"), port=1)
    due = due_feedback(model, lake, home / JOURNAL, captured=lambda: captured_of(model, serving))
    for stretch in due.stretches():
        run = SimpleNamespace(run_id="of-a-test", tags={INPUTS_TAG: stretch.digest})
        if "predictions" in stretch.assets:
            make(_Context(predictions(model), stretch.partitions, run), lake, serving=serving)
        if "feedback" in stretch.assets:
            make(_Context(feedback(model), stretch.partitions, run), lake)
        make(_Context(monitoring(model), stretch.partitions, run), lake, serving=serving)
    return {day: sorted(need.assets) for day, need in due.needs.items()}


def make(context: _Context, lake: Lake, **resources: Any) -> None:
    """Run one step; a blocking check that fails would end a run."""
    step: Any = context.assets_def
    blocking = {(each.asset_key, each.name) for each in step.check_specs if each.blocking}
    for result in step.op.compute_fn.decorated_fn(context, lake=LakeResource(root=str(lake.root)), **resources):
        for check in [result] if isinstance(result, dg.AssetCheckResult) else result.check_results or []:
            assert check.passed or (check.asset_key, check.check_name) not in blocking, check
