"""Where approved releases serve, as a Dagster resource."""

from pathlib import Path
from typing import Any

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
            return LocalRollout(self.target(), model.name, model.spec.endpoint.stick)
        settings, releases = Settings.from_environment(), Path(self.releases)
        if model.spec.endpoint.target == "sagemaker":
            from ml_assets.deployment.sagemaker import Account, SageMakerTarget

            needed = _settings(model, settings, "SageMaker", "role", "image", "store")
            account = Account(**needed, endpoint_url=settings.s3_endpoint_url)
            return SageMakerTarget(model.name, model.spec.endpoint.sagemaker, account, releases)
        from ml_assets.deployment.kubernetes.place import KubernetesPlace
        from ml_assets.deployment.kubernetes.target import target_of

        needed = _settings(model, settings, "Kubernetes", "namespace", "image", "releases", "secret")
        said: dict[str, Any] = needed | model.spec.endpoint.kubernetes.model_dump()
        place = KubernetesPlace(**said, context=settings.kubernetes_context)
        return target_of(place, model.name, releases, Options.of(settings).a_key())

    def target(self) -> LocalTarget:
        # Keys are no configuration, which Dagster keeps and shows.
        guard = Options.of(Settings.from_environment())
        return LocalTarget(Path(self.home), Path(self.releases), self.port, self.online, guard)


def _settings(model: Model, settings: Settings, target: str, *names: str) -> dict[str, str]:
    """What a target needs of the settings.

    Raises:
        SettingsError: naming all that are not set.
    """
    needed = {name: str(getattr(settings, f"{target.lower()}_{name}")) for name in names}
    if lacking := [f"ML_ASSETS_{target.upper()}_{name.upper()}" for name, value in needed.items() if not value]:
        raise SettingsError(f"{model.name} is to serve on {target}; set {', '.join(lacking)}")
    return needed
