"""Whether a model is better or worse than the champion, on rows that neither was trained on."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ml_assets.ml.bootstrap import LEVEL, differences, percentiles
from ml_assets.ml.evaluation import Scored, measure
from ml_assets.spec.base import LOWER_IS_BETTER

Outcome = Literal["no champion", "is the champion", "same model", "better", "worse", "alike", "inconclusive"]


@dataclass(frozen=True)
class Comparison:
    """What became of it.

    Attributes:
        reason: the outcome as a sentence.
        champion: the version that it was compared with; None where there is none.
        metric: by which they were compared.
        rows: held-out rows that neither was trained on.
        value: by how much it is better, on these rows; `low` and `high` the interval, by the paired bootstrap.
        values, champion_values: all metrics of both on these rows.
    """

    outcome: Outcome
    reason: str
    champion: str | None = None
    metric: str = ""
    rows: int = 0
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    values: dict[str, float] = field(default_factory=dict)
    champion_values: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON has no NaN."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(self).items()
        }


def compare(
    challenger: Scored, champion: Scored, name: str, version: str, fewest: int, *, held_out: int, seed: int = 0
) -> Comparison:
    """Compare two models on the same rows by the paired bootstrap (Efron and Tibshirani 1993, chapter 16).

    Both are measured on the same resamples, so that what makes a row hard for both does not count. Of two models that
    are equally good, the challenger is called better in at most 3 % of comparisons and worse in as many: 2.5 %, and
    what the percentile bootstrap is too narrow by (`ml_assets_tests/drills/comparisons.py`).

    Args:
        challenger, champion: answers for the rows that neither was trained on, in the same order.
        name: of the metric.
        version: of the champion.
        fewest: rows without which nothing is said.
        held_out: rows that the challenger was not trained on.
    """
    rows, against = len(challenger.truth), f"the champion, version {version}"
    if rows < fewest:
        return Comparison(
            "inconclusive",
            f"{rows:,} of {held_out:,} held-out rows were not among those that {against}, was trained on; "
            f"gates.min_rows is {fewest:,}",
            version,
            name,
            rows,
        )
    values, champion_values = measure(challenger), measure(champion)
    drawn = differences(challenger, champion, name, seed)
    low, high = percentiles(drawn, rows)
    ours, theirs = values[name], champion_values[name]
    value = theirs - ours if name in LOWER_IS_BETTER else ours - theirs
    if math.isnan(value) or math.isnan(low):
        return Comparison("inconclusive", f"{name} cannot be measured on the {rows:,} common rows", version, name, rows)
    outcome: Outcome = "worse" if high < 0 else "better" if low > 0 else "alike"
    said = {"worse": "significantly worse than", "better": "significantly better than", "alike": "not told apart from"}
    reason = (
        f"{said[outcome]} {against}: {name} {ours:.4f} against {theirs:.4f} on {rows:,} rows that neither was trained "
        f"on; {LEVEL:.0%} interval of the gain {low:+.4f} to {high:+.4f}"
    )
    return Comparison(outcome, reason, version, name, rows, value, low, high, values, champion_values)
