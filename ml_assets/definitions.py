"""The code location: every model below the models' folder, with the resources of this environment."""

import types
import warnings
from pathlib import Path

import dagster as dg
from dagster.components.core.component_tree import ComponentTree

from ml_assets.automation.alerts import alerts_sensor
from ml_assets.component import TabularModel
from ml_assets.errors import SettingsError
from ml_assets.resources import ComputeResource, FeatureStoreResource, LakeResource, ServingResource, TrackingResource
from ml_assets.settings import PROJECT_ROOT, Settings


@dg.definitions
def definitions() -> dg.Definitions:
    """All models and resources of this process's environment."""
    settings = Settings.from_environment()
    return dg.Definitions.merge(models_in(settings.models), resources_of(settings))


def models_in(folder: Path) -> dg.Definitions:
    """Definitions of all models of a folder, and the sensor that tells people about them."""
    with warnings.catch_warnings(category=dg.BetaWarning, action="ignore"):  # Dagster's own, for code references
        tree = component_tree(folder)
        defs = tree.build_defs()
        models = [each.model for each in tree.get_all_components(of_type=TabularModel)]
    return dg.Definitions.merge(defs, dg.Definitions(sensors=[alerts_sensor(models)]))


def component_tree(folder: Path) -> ComponentTree:
    """The models of a folder, which need not be a package: examples and tests have folders of their own.

    Raises:
        SettingsError: if there is no model in it.
    """
    if not list(folder.glob("*/defs.yaml")):
        raise SettingsError(f"{folder} holds no model (no */defs.yaml); set ML_ASSETS_MODELS to a folder that does")
    module = types.ModuleType(f"ml_assets_models_{folder.name}")
    module.__path__ = [str(folder)]
    module.__file__ = str(folder / "__init__.py")
    return ComponentTree(defs_module=module, project_root=PROJECT_ROOT)


def resources_of(settings: Settings) -> dg.Definitions:
    """Resources and executor of an environment."""
    # As variables: Dagster shows how resources are configured, and an address may hold a password.
    mlflow = dg.EnvVar("ML_ASSETS_MLFLOW_URI") if settings.mlflow.get_secret_value() else settings.mlflow_uri
    redis = dg.EnvVar("ML_ASSETS_ONLINE_STORE") if settings.online_store.get_secret_value() else ""
    return dg.Definitions(
        resources={
            "lake": LakeResource(root=str(settings.lake)),
            "feature_store": FeatureStoreResource(root=str(settings.feast), place=redis or str(settings.feast)),
            "compute": ComputeResource(ray=settings.ray_address, searches=str(settings.searches)),
            "tracking": TrackingResource(
                uri=mlflow,
                artifacts=settings.mlflow_artifacts,
                ui=settings.mlflow_ui,
                s3_endpoint_url=settings.s3_endpoint_url or "",
            ),
            "serving": ServingResource(
                home=str(settings.home),
                releases=str(settings.releases),
                port=settings.endpoint_port,
                online=redis,
            ),
        },
        executor=dg.in_process_executor,  # a spawned step costs seconds of imports; runs are the unit of isolation
    )
