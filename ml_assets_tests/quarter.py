"""A quarter of the demo's business in minutes: each day its files land, its orders are asked about, and time goes on.

The processes of its project tell the time of a `Clock`, and so does the one that lets the days pass and does their
work: what the daemon's sensors would ask for. (The daemon itself stops when its clock jumps: its heartbeats are late.)
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import dagster as dg
import polars as pl

from ml_assets.demo.business import Business, land
from ml_assets.demo.callers import MODEL, ask_about
from ml_assets.lake import PARTITION
from ml_assets.ledger import decisions
from ml_assets.monitored import ASSET as MONITORING
from ml_assets.resources import LakeResource
from ml_assets_tests.clock import Clock
from ml_assets_tests.project import Project

FIRST = date(2025, 3, 1)  # of the orders; by then there is no snow any more, and no season changes
WATCHED: dict[str, Any] = {
    "source": {
        "kind": "files",
        "uri": "{{ landing }}/late_deliveries/orders/*.parquet",
        "batch": "day",
        "start": FIRST.isoformat(),
    },
    "groups": [],
    "metrics": {"primary": "accuracy"},  # what a late delivery is worth does not change with how many there are
    "gates": {"f1": 0.5, "min_rows": 50},
    "estimator": {"params": {"n_estimators": 30, "max_depth": 8}},
    "endpoint": {"canary": [100]},
    "feedback": {"delay": "3d"},
}


@dataclass
class Quarter:
    """The business, and what is seen of it.

    Attributes:
        begins: first day on which the endpoint is asked; the days before were landed at once.
        answers: of each day how many each version gave.
    """

    project: Project
    clock: Clock
    business: Business
    begins: date
    answers: dict[date, Counter[str]] = field(default_factory=dict)

    def open(self) -> None:
        """Land the time before the quarter, as of its first morning."""
        self.clock.set(_at(self.begins, 0, 10))
        self._land(FIRST, (self.begins - FIRST).days)

    def pass_day(self, number: int) -> None:
        """One day: yesterday's export lands at midnight, the shop asks over the day, and the work of it is done."""
        day = self.begins + timedelta(days=number)
        self.clock.set(_at(day, 0, 10))
        if number:
            self._land(day - timedelta(days=1), 1)
        self.work()
        self.clock.set(_at(day, 12, 0))
        self.answers[day] = ask_about(self.project.target, self.business, day)

    def work(self) -> None:
        """Run what is due, and then what the sensor of alerts does."""
        while self.project.materialize():
            pass
        project = self.project
        with project.active(), dg.DagsterInstance.get() as instance:
            repository = project.definitions().get_repository_def()
            resources = {"lake": LakeResource(root=str(project.settings.lake))}
            with dg.build_sensor_context(instance, repository_def=repository, resources=resources) as context:
                repository.get_sensor_def("alerts")(context)

    def _land(self, first: date, days: int) -> None:
        land(self.business, self.project.landing / MODEL, first, days)

    def alarms(self) -> dict[date, dict[str, list[str]]]:
        """What monitoring found of each day."""
        records = self.project.latest().of(MONITORING)
        return {date.fromisoformat(day): each.details["alarms"] for day, each in records.items()}

    def trainings(self) -> list[Any]:
        """What was decided about trainings: each time that one was asked for."""
        said = decisions(self.project.lake, MODEL)
        return [each for each in said if each.subject == "training" and "trained_model" in each.assets]

    def quality(self) -> dict[date, float]:
        """The primary metric of the answers of each day whose outcomes are known, whatever version gave them."""
        rows = self.project.lake.read(MODEL, MONITORING)
        if rows.is_empty():
            return {}
        name = self.project.model().spec.primary_metric
        known = rows.filter(subject="quality", name=name).drop_nulls("value").with_columns(weight=pl.col("rows"))
        by_day = known.group_by(PARTITION).agg((pl.col("value") * pl.col("weight")).sum() / pl.col("weight").sum())
        return {date.fromisoformat(day): value for day, value in sorted(by_day.select(PARTITION, "value").rows())}


def _at(day: date, hour: int, minute: int) -> datetime:
    return datetime.combine(day, time(hour, minute), UTC)
