"""The smallest model that is trained, judged and served: 400 rows of one CSV file, a forest of five trees."""

from typing import Any

import numpy as np
import polars as pl

from ml_assets_tests.project import Project

NAME = "shop"
CONTRACT = """
import pandera.polars as pa


class Rows(pa.DataFrameModel):
    number: int = pa.Field(metadata={"role": "key"})
    size: float = pa.Field(gt=0, metadata={"role": "request"})
    colour: str = pa.Field(nullable=True, metadata={"role": "request"})
    sold: bool = pa.Field(nullable=True, metadata={"role": "target"})
"""
SPEC: dict[str, Any] = {
    "task": "binary",
    "contract": "contract.Rows",
    "source": {"kind": "files", "uri": "{{ landing }}/shop.csv"},
    "training": {"min_rows": 100, "folds": 2},
    "estimator": {"params": {"n_estimators": 5, "max_depth": 4}},
    "gates": {"min_rows": 50},
}


def add_shop(project: Project, **changes: Any) -> None:
    """Declare the model and let its rows arrive."""
    project.add_model(NAME, SPEC | changes, CONTRACT)
    if not (project.landing / "shop.csv").exists():
        land_shop(project)


def land_shop(project: Project, number: int = 400) -> None:
    """The first so many rows."""
    random = np.random.default_rng(3)
    size = random.gamma(3.0, 20.0, 1000).round(3)
    colour = random.choice(["red", "green"], 1000)
    sold = size + 30 * (colour == "red") + random.normal(0, 5, 1000) > 70
    frame = pl.DataFrame({"number": range(1000), "size": size, "colour": colour.tolist(), "sold": sold.tolist()})
    project.landing.mkdir(parents=True, exist_ok=True)
    frame.head(number).write_csv(project.landing / "shop.csv")
