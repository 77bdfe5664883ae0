"""Where approved releases serve, as a Dagster resource."""

from pathlib import Path

import dagster as dg
from pydantic import Field

from ml_assets.deployment.local import LocalTarget
from ml_assets.deployment.local_rollout import LocalRollout
from ml_assets.deployment.targets import Target
from ml_assets.model import Model
from ml_assets.serving.options import Options
from ml_assets.settings import Settings


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
        return LocalRollout(self.target(), model.name)

    def target(self) -> LocalTarget:
        # Keys are no configuration, which Dagster keeps and shows.
        guard = Options.of(Settings.from_environment())
        return LocalTarget(Path(self.home), Path(self.releases), self.port, self.online, guard)
