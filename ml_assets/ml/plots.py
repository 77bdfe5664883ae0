"""Plots of an evaluation as PNG images."""

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ml_assets.ml.evaluation import CALIBRATION_BINS, Scored, foretold

MOST_CLASSES, MOST_FEATURES, MOST_POINTS = 10, 20, 5_000


def draw(scored: Scored, title: str, importances: Mapping[str, tuple[float, float]], metric: str) -> dict[str, bytes]:
    """The plots of a task, by name, each a PNG.

    Classification: confusion matrix, ROC and precision-recall curves (of several classes one each, against the rest)
    and calibration. Regression: predicted against actual values, and residuals. Both: importance of features.

    Args:
        importances: loss in `metric` and its standard deviation, by feature, the greatest first.
    """
    paint: dict[str, Callable[[Any], None]]
    if scored.task == "regression":
        paint = {
            "predicted_against_actual": lambda axes: _predicted(axes, scored),
            "residuals": lambda axes: _residuals(axes, scored),
        }
    else:
        paint = {
            "confusion_matrix": lambda axes: _confusion(axes, scored),
            "roc_curve": lambda axes: _roc(axes, scored),
            "precision_recall": lambda axes: _precision_recall(axes, scored),
            "calibration": lambda axes: _calibration(axes, scored),
        }
    paint["permutation_importance"] = lambda axes: _importances(axes, importances, metric)
    return {name: figure(each, title) for name, each in paint.items()}


def figure(paint: Callable[[Any], None], title: str) -> bytes:
    """A PNG of what `paint` paints on its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(4.8, 4.0), layout="constrained")
    paint(drawn.add_subplot())
    drawn.suptitle(title, fontsize=10)
    FigureCanvasAgg(drawn)
    target = io.BytesIO()
    drawn.savefig(target, format="png", dpi=90)
    return target.getvalue()


def _confusion(axes: Any, scored: Scored) -> None:
    from sklearn.metrics import confusion_matrix

    size = range(len(scored.classes))
    counts = confusion_matrix(scored.truth, scored.answers, labels=size)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in size if len(size) <= MOST_CLASSES else ():
        for column in size:
            shade = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", color=shade)
    names = [str(each)[:20] for each in scored.classes]
    axes.set(xlabel="predicted", ylabel="actual", title="Confusion matrix")
    axes.set_xticks(size, names, rotation=90 if len(size) > MOST_CLASSES else 0)
    axes.set_yticks(size, names)


def _curves(
    axes: Any, scored: Scored, curve: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
) -> None:
    """One line for two classes, else one for each of the most frequent classes against the rest."""
    counts = np.bincount(scored.truth, minlength=len(scored.classes))
    several = scored.task == "multiclass"
    for each in np.sort(np.argsort(-counts, kind="stable")[:MOST_CLASSES]) if several else [1]:
        if 0 < counts[each] < len(scored.truth):
            axes.plot(*curve(scored.truth == each, scored.scores[:, each]), label=str(scored.classes[each])[:20])
    if several:
        axes.legend(fontsize=8)


def _roc(axes: Any, scored: Scored) -> None:
    from sklearn.metrics import roc_curve

    _curves(axes, scored, lambda truth, scores: roc_curve(truth, scores)[:2])
    axes.plot([0, 1], [0, 1], linestyle=":", color="grey")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC curve", aspect="equal")


def _precision_recall(axes: Any, scored: Scored) -> None:
    from sklearn.metrics import precision_recall_curve

    def curve(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        precision, recall, _ = precision_recall_curve(truth, scores)
        return recall, precision

    _curves(axes, scored, curve)
    if scored.task == "binary":
        share = float(np.mean(scored.truth == 1))
        axes.axhline(share, linestyle=":", color="grey")
        axes.annotate(f"all rows called {scored.classes[1]}", (0.02, share), fontsize=8, color="grey", va="bottom")
    axes.set(xlabel="recall", ylabel="precision", title="Precision and recall", xlim=(0, 1.02), ylim=(0, 1.02))


def _calibration(axes: Any, scored: Scored) -> None:
    from sklearn.calibration import calibration_curve

    scores, came_true = foretold(scored)
    actual, predicted = calibration_curve(
        came_true, np.clip(scores, 0, 1), n_bins=CALIBRATION_BINS, strategy="quantile"
    )
    axes.plot(predicted, actual, marker="o")
    axes.plot([0, 1], [0, 1], linestyle=":", color="grey")
    what = f"share of {scored.classes[1]}" if scored.task == "binary" else "share of right answers"
    axes.set(xlabel="mean score", ylabel=what, title="Calibration", aspect="equal")


def _importances(axes: Any, importances: Mapping[str, tuple[float, float]], metric: str) -> None:
    shown = list(importances.items())[:MOST_FEATURES]
    names = [name if len(name) <= 30 else f"{name[:29]}…" for name, _ in shown]
    places = range(len(shown))
    axes.barh(places, [mean for _, (mean, _) in shown], xerr=[spread for _, (_, spread) in shown], height=0.7)
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    more = f" ({len(shown)} of {len(importances)})" if len(shown) < len(importances) else ""
    axes.set(xlabel=f"loss in {metric} when shuffled", title=f"Importance of features{more}")


def _predicted(axes: Any, scored: Scored) -> None:
    some = np.random.default_rng(0).permutation(len(scored.truth))[:MOST_POINTS]
    axes.plot(scored.truth[some], scored.scores[some], ".", markersize=2, alpha=0.4)
    ends = [float(min(scored.truth.min(), scored.scores.min())), float(max(scored.truth.max(), scored.scores.max()))]
    axes.plot(ends, ends, linestyle=":", color="grey")
    axes.set(xlabel="actual", ylabel="predicted", title="Predicted against actual")


def _residuals(axes: Any, scored: Scored) -> None:
    axes.hist(scored.truth - scored.scores, bins=60)
    axes.axvline(0, linestyle=":", color="grey")
    axes.set(xlabel="actual - predicted", ylabel="rows", title="Residuals")
