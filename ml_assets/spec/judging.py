"""Metrics and gates."""

from typing import Annotated, Literal

from pydantic import Field

from ml_assets.spec.base import METRICS, Share, Spec


class Metrics(Spec):
    """How a model is judged on held-out rows, beside its gates."""

    primary: str | None = Field(
        None,
        description="Metric by which it is compared with the champion, by slice, and with its own training rows. "
        "Default: roc_auc for two classes, accuracy for several, rmse for regression.",
    )
    slices: list[str] = Field(
        [], description="Columns by whose values (numbers: quarters) it is judged: features, entities or keys."
    )
    slice_rows: int = Field(100, ge=20, description="Held-out rows without which a slice is not judged.")


PRIMARY: dict[str, str] = {"binary": "roc_auc", "multiclass": "accuracy", "regression": "rmse"}


class Gates(Spec):
    """What a model must reach on held-out rows before it may serve. Each gate is a blocking asset check."""

    prior: Literal["better", "off"] = Field(
        "better", description="The 95 % interval of roc_auc (or r2) must lie above what a constant answer reaches."
    )
    champion: Literal["not_worse", "better", "off"] = Field(
        "not_worse",
        description="How the primary metric must compare with the champion's, by the 95 % interval of the difference "
        "on rows that neither was trained on: it may not lie below zero, or must lie above it.",
    )
    inconclusive: Literal["pass", "refuse"] = Field(
        "pass", description="What it means for the gate `champion` if they cannot be compared."
    )
    min_rows: int = Field(100, ge=1, description="Held-out rows, at least; also those of a comparison.")
    accuracy: Share | None = None
    precision: Share | None = None
    recall: Share | None = None
    f1: Share | None = None
    roc_auc: Share | None = None
    rmse: float | None = Field(None, gt=0, description="At most, in the target's unit.")
    mae: float | None = Field(None, gt=0, description="At most, in the target's unit.")
    r2: float | None = Field(None, le=1)
    worst_slice: float | None = Field(
        None, description="What the primary metric must reach in every slice, declared or found, beyond chance."
    )
    calibration_error: Share | None = Field(
        None, description="How far scores may be from the shares that they foretell, on average; for classes."
    )
    train_test_gap: float | None = Field(
        None, ge=0, description="By how much the primary metric may be better on training rows than on held-out ones."
    )
    milliseconds_per_row: float | None = Field(
        None, gt=0, description="How long scoring one row may take, as the median of single rows on this machine."
    )
    leak: Annotated[float, Field(gt=0.5, le=1)] | None = Field(
        None, description="What a single feature alone may reach in ROC AUC (regression: r2), before it is suspected."
    )

    def thresholds(self) -> dict[str, float]:
        """The absolute thresholds that were set, by metric."""
        names = {metric for metrics in METRICS.values() for metric in metrics}
        return {name: value for name, value in self.model_dump(exclude_none=True).items() if name in names}
