"""The feature store as a Dagster resource."""

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from ml_assets.lake import Lake
from ml_assets.model import Model
from ml_assets.serving.online import REDIS, OnlineStore, open_online, sqlite_path

if TYPE_CHECKING:
    from feast import FeatureStore


class FeatureStoreResource(dg.ConfigurableResource):
    """Feast: a repository, a registry and an online store per model.

    Attributes:
        root: folder of the repositories, and of the online stores in SQLite.
        place: where the online stores are: that folder, or a Redis server's address, which may hold a password
            and is then given as a variable of the environment.
    """

    root: str
    place: str = Field(repr=False)

    def folder(self, model: Model) -> Path:
        return Path(self.root) / model.name

    def online(self, model: Model) -> OnlineStore:
        return open_online(self.place, model.name)

    def apply(self, model: Model, lake: Lake) -> "FeatureStore":
        """Write the model's Feast repository, and bring Feast's registry to what it says."""
        from ml_assets.feature_store.repository import apply, write_repository

        online = self.place if self.place.startswith(REDIS) else sqlite_path(self.place, model.name)
        write_repository(self.folder(model), model, lake, online)
        return apply(self.folder(model))
