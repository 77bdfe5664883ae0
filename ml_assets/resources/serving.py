"""Where approved releases serve, as a Dagster resource."""

from pathlib import Path

import dagster as dg
from pydantic import Field

from ml_assets.deployment.local import LocalTarget
from ml_assets.deployment.targets import Target
from ml_assets.model import Model


class ServingResource(dg.ConfigurableResource):
    """The endpoint server of this machine.

    Attributes:
        home: folder of all local state; the server's address and log lie there.
        releases: folder of the releases that it serves.
        port: the port to try first.
        online: address of a Redis server as online store; empty: SQLite below `home`.
    """

    home: str
    releases: str
    port: int
    online: str = Field("", repr=False)

    def target_of(self, model: Model) -> Target:
        """Where a model serves."""
        return self.target().of_model(model.name)

    def target(self) -> LocalTarget:
        return LocalTarget(Path(self.home), Path(self.releases), self.port, self.online)
