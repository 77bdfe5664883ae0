"""What all parts of a spec have in common."""

import re
from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict

TEMPLATE_VARIABLES = ("landing",)
# Assets and tables of every model; a side table is called otherwise.
TABLES = frozenset(
    {
        *("raw_data", "cleaned_data", "rejected_rows", "outcomes", "features", "trained_model", "metrics", "endpoint"),
        *("batches", "surveys", "ledger", "rollouts", "predictions", "feedback", "monitoring", "captured", "probes"),
    }
)
Task = Literal["binary", "multiclass", "regression"]

METRICS: dict[str, tuple[str, ...]] = {
    "binary": ("accuracy", "precision", "recall", "f1", "roc_auc"),
    "multiclass": ("accuracy", "precision", "recall", "f1", "roc_auc"),
    "regression": ("rmse", "mae", "r2"),
}
LOWER_IS_BETTER = frozenset({"rmse", "mae"})


def _known_templates(text: str) -> str:
    """`{{ env.HOME }}` and misspelt names would silently become `None` or nothing: refuse them here."""
    for name in re.findall(r"\{\{\s*(.*?)\s*\}\}", text):
        if name not in TEMPLATE_VARIABLES:
            known = ", ".join(TEMPLATE_VARIABLES)
            raise ValueError(f"{{{{ {name} }}}} is not known here; a model's YAML may use only: {known}")
    return text


Text = Annotated[str, AfterValidator(_known_templates)]
Day = Annotated[date, Strict(False)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Share = Annotated[float, Field(ge=0, le=1)]
PythonName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*\.[A-Za-z_]\w*$")]


class Spec(BaseModel):
    """Part of a model's YAML: strict, frozen, and nothing unknown in it."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")
