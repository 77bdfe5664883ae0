"""Where approved releases serve, as a Dagster resource."""

from pathlib import Path

import dagster as dg
from pydantic import Field

from ml_assets.deployment.local import LocalTarget
from ml_assets.deployment.local_rollout import LocalRollout
from ml_assets.deployment.targets import Target
from ml_assets.errors import SettingsError
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
        """Where a model serves.

        Raises:
            SettingsError: naming the setting that its target needs and that is not set.
        """
        if model.spec.endpoint.target == "local":
            return LocalRollout(self.target(), model.name)
        from ml_assets.deployment.sagemaker import Account, SageMakerTarget

        settings = Settings.from_environment()
        needed = {name: getattr(settings, f"sagemaker_{name}") for name in ("role", "image", "store")}
        if lacking := [f"ML_ASSETS_SAGEMAKER_{name.upper()}" for name, value in needed.items() if not value]:
            raise SettingsError(f"{model.name} is to serve on SageMaker; set {', '.join(lacking)}")
        account = Account(**needed, endpoint_url=settings.s3_endpoint_url)
        return SageMakerTarget(model.name, model.spec.endpoint.sagemaker, account, Path(self.releases))

    def target(self) -> LocalTarget:
        # Keys are no configuration, which Dagster keeps and shows.
        guard = Options.of(Settings.from_environment())
        return LocalTarget(Path(self.home), Path(self.releases), self.port, self.online, guard)
