"""The model card: one HTML page without links to anything, with all that was found out about a model version
(Mitchell et al. 2019, Model Cards for Model Reporting).
"""

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ml_assets.ml.comparison import Comparison
from ml_assets.ml.slices import Slices
from ml_assets.ml.verdict import Verdict

MOST_SLICES = 60


def card(
    verdict: Verdict,
    *,
    about: Mapping[str, Any],
    metrics: pl.DataFrame,
    comparison: Comparison,
    slices: Slices,
    plots: Mapping[str, bytes],
    sections: Mapping[str, Mapping[str, Any]],
) -> str:
    """The page. Whatever text it is given is escaped.

    Args:
        about: `task`, `description`, `owners`, `judged_at` and `slice_rows`.
        metrics: rows, metric, value, low, high and count.
        sections: facts by title: how it was trained, on what.
    """
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["figure"] = _figure
    template = environment.from_string(Path(__file__).with_name("card.html").read_text("utf8"))
    shown = slices.declared[:MOST_SLICES]
    if slices.worst is not None and slices.worst not in shown:
        shown = [*shown, slices.worst]
    return template.render(
        name=verdict.model,
        version=verdict.version,
        approved=verdict.approved,
        reasons=verdict.reasons,
        gates=verdict.gates,
        metrics=metrics.to_dicts(),
        comparison=comparison.to_json(),
        slices=slices,
        shown_slices=shown,
        plots={title.replace("_", " "): base64.b64encode(image).decode() for title, image in plots.items()},
        sections=sections,
        interval=_interval,
        **about,
    )


def _interval(low: float | None, high: float | None) -> str:
    return "" if _unknown(low) or _unknown(high) or low == high else f"{_figure(low)} to {_figure(high)}"


def _figure(value: float | None) -> str:
    """A number as people read it: whole ones whole, others with as many digits as tell something."""
    if value is None or _unknown(value):
        return "–"
    if value == int(value):
        return f"{value:,.0f}"
    if abs(value) < 0.001:
        return f"{value:.2g}"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.1f}"


def _unknown(value: float | None) -> bool:
    return value is None or math.isnan(value)


def sections_of(
    lineage: Mapping[str, Sequence[str]],
    trained: Mapping[str, Any],
    counts: Mapping[str, int],
    digests: Mapping[str, str],
) -> dict[str, dict[str, Any]]:
    """What a card says of training, rows, features and digests."""
    return {
        "Training": dict(trained),
        "Rows": {name.replace("_", " "): f"{count:,}" for name, count in counts.items()},
        "Features and the columns that they read": {name: ", ".join(read) for name, read in lineage.items()},
        "Digests": dict(digests),
    }
