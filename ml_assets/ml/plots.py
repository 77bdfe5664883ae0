"""Plots of an evaluation as PNG images."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np

from ml_assets.ml.evaluation import Scored


def draw(scored: Scored, title: str) -> dict[str, bytes]:
    """The plots of a task, by name, each a PNG.

    Classification: confusion matrix; for two classes also ROC and calibration curve. Regression: predicted against
    actual values, and residuals.
    """
    if scored.task == "regression":
        return {
            "predicted_against_actual": _figure(lambda axes: _predicted(axes, scored), title),
            "residuals": _figure(lambda axes: _residuals(axes, scored), title),
        }
    plots = {"confusion_matrix": _figure(lambda axes: _confusion(axes, scored), title)}
    if scored.task == "binary":
        plots["roc_curve"] = _figure(lambda axes: _roc(axes, scored), title)
        plots["calibration"] = _figure(lambda axes: _calibration(axes, scored), title)
    return plots


def _figure(paint: Callable[[Any], None], title: str) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 4.0), layout="constrained")
    paint(figure.add_subplot())
    figure.suptitle(title, fontsize=10)
    FigureCanvasAgg(figure)
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=90)
    return target.getvalue()


def _confusion(axes: Any, scored: Scored) -> None:
    from sklearn.metrics import confusion_matrix

    size = range(len(scored.classes))
    counts = confusion_matrix(scored.truth, scored.answers, labels=size)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in size:
        for column in size:
            shade = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", color=shade)
    names = [str(each) for each in scored.classes]
    axes.set(xlabel="predicted", ylabel="actual", title="Confusion matrix")
    axes.set_xticks(size, names)
    axes.set_yticks(size, names)


def _roc(axes: Any, scored: Scored) -> None:
    from sklearn.metrics import roc_curve

    false_positive, true_positive, _ = roc_curve(scored.truth, scored.scores[:, 1])
    axes.plot(false_positive, true_positive)
    axes.plot([0, 1], [0, 1], linestyle=":", color="grey")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC curve", aspect="equal")


def _calibration(axes: Any, scored: Scored) -> None:
    from sklearn.calibration import calibration_curve

    actual, predicted = calibration_curve(scored.truth, scored.scores[:, 1], n_bins=10, strategy="quantile")
    axes.plot(predicted, actual, marker="o")
    axes.plot([0, 1], [0, 1], linestyle=":", color="grey")
    axes.set(xlabel="mean score", ylabel=f"share of {scored.classes[1]}", title="Calibration", aspect="equal")


def _predicted(axes: Any, scored: Scored) -> None:
    axes.plot(scored.truth, scored.scores, ".", markersize=2, alpha=0.4)
    ends = [float(min(scored.truth.min(), scored.scores.min())), float(max(scored.truth.max(), scored.scores.max()))]
    axes.plot(ends, ends, linestyle=":", color="grey")
    axes.set(xlabel="actual", ylabel="predicted", title="Predicted against actual")


def _residuals(axes: Any, scored: Scored) -> None:
    axes.hist(scored.truth - scored.scores, bins=60)
    axes.set(xlabel="actual - predicted", ylabel="rows", title="Residuals")
