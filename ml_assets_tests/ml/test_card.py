import base64
import math
import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from ml_assets.ml.card import card
from ml_assets.ml.comparison import Comparison
from ml_assets.ml.evaluation import Scored
from ml_assets.ml.gates import Gate
from ml_assets.ml.plots import draw
from ml_assets.ml.slices import Slice, Slices
from ml_assets.ml.verdict import Verdict

WORST = Slice("zone", "zone = <b>x</b>", 120, 0.61, 0.5, 0.7, True)
FAILED = Gate("f1", "f1", 0.5, 0.4, 0.6, 0.8, False, "f1 0.5000, at least 0.8 is asked for")
UNMEASURED = Gate("prior", "roc_auc", math.nan, math.nan, math.nan, 0.5, False, "roc_auc nan")
VERDICT = Verdict(
    "rides", "7", False, [FAILED.reason], "m", "d", "c", "g", "6", [FAILED.to_json(), UNMEASURED.to_json()]
)
ABOUT = {"task": "binary", "description": "A & B", "owners": ["team:x"], "judged_at": "today", "slice_rows": 100}
METRICS = pl.DataFrame(
    {"rows": ["test"], "metric": ["f1"], "value": [0.5], "low": [None], "high": [None], "count": [1200]}
)


def page(comparison: Comparison, slices: Slices) -> str:
    return card(
        VERDICT,
        about=ABOUT,
        metrics=METRICS,
        comparison=comparison,
        slices=slices,
        plots={"roc_curve": b"\x89PNG"},
        sections={"Training": {"parameters": {"C": "<script>"}}},
    )


def test_it_tells_everything_and_needs_nothing_from_elsewhere() -> None:
    compared = Comparison(
        "worse", "significantly worse than", "6", "f1", 990, -0.1, -0.2, -0.01, {"f1": 0.5}, {"f1": 0.6}
    )
    text = page(compared, Slices("f1", (WORST, replace(WORST, name="zone = y")), WORST))
    for told in ("Refused: it may not serve", FAILED.reason, "A &amp; B", "1,200", "990 rows", "champion, version 6"):
        assert told in text
    assert "zone = &lt;b&gt;x&lt;/b&gt; <b>(worst)</b>" in text
    assert base64.b64encode(b"\x89PNG").decode() in text
    assert "<script>" not in text
    assert not re.search(r"""(src|href)=["'](?!data:)""", text)
    assert "nan" not in text.replace("roc_auc nan", ""), "what could not be measured is a dash"
    assert "prefers-color-scheme: dark" in text


@pytest.mark.parametrize("outcome", ["no champion", "is the champion", "same model", "inconclusive"])
def test_it_says_why_there_is_no_comparison_or_slice(outcome: str) -> None:
    text = page(Comparison(outcome, "because of that"), Slices("f1", (), None))  # type: ignore[arg-type]
    assert f"{outcome.capitalize()}." in text
    assert "Because of that." in text
    assert "No slice has 100 rows" in text


TASKS = {
    "binary": {"confusion_matrix", "roc_curve", "precision_recall", "calibration"},
    "multiclass": {"confusion_matrix", "roc_curve", "precision_recall", "calibration"},
    "regression": {"predicted_against_actual", "residuals"},
}


@pytest.mark.parametrize("task", TASKS)
def test_each_task_has_its_plots(task: str) -> None:
    random = np.random.default_rng(1)
    if task == "regression":
        truth = random.normal(size=300)
        some = Scored(truth, truth + random.normal(size=300), [], "regression")
    else:
        classes = 2 if task == "binary" else 12
        scores = random.dirichlet(np.ones(classes), 300)
        some = Scored(random.integers(0, classes - 1, 300), scores, list(range(classes)), task)  # type: ignore[arg-type]
    importances = {f"feature_{each}_with_a_name_that_is_rather_long": (1 / (each + 1), 0.01) for each in range(40)}
    plots = draw(some, "rides version 7", importances, "f1")
    assert set(plots) == TASKS[task] | {"permutation_importance"}
    assert all(each.startswith(b"\x89PNG") for each in plots.values())
