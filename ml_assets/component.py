"""`ml_assets.TabularModel`: the component behind each model's `defs.yaml`."""

from pathlib import Path
from typing import Any, Self

import dagster as dg
from pydantic import BaseModel

from ml_assets.assets import build_assets
from ml_assets.automation import build_automation
from ml_assets.loading import load_model
from ml_assets.model import Model
from ml_assets.settings import Settings
from ml_assets.spec.model import ModelSpec


class TabularModel(dg.Component):
    """One prediction problem: a folder with `defs.yaml`, a contract and features becomes assets, checks, jobs,
    a schedule and sensors.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        return ModelSpec  # so that Dagster reports what is wrong with file, line and key

    @classmethod
    def get_additional_scope(cls) -> dict[str, Any]:
        return {"landing": Settings.from_environment().landing}

    @classmethod
    def load(cls, attributes: Any, context: dg.ComponentLoadContext) -> Self:
        raw = context.resolution_context.resolve_value(attributes.model_dump(by_alias=True, exclude_unset=True))
        folder = context.path if context.path.is_dir() else context.path.parent
        return cls.from_spec(ModelSpec.model_validate(raw), folder)

    @classmethod
    def from_spec(cls, spec: ModelSpec, folder: Path) -> Self:
        """The component of a spec made in Python; `folder` holds its contract and features."""
        return cls(load_model(spec, folder, Settings.from_environment().access))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        return dg.Definitions.merge(dg.Definitions(assets=build_assets(self.model)), build_automation(self.model))
