"""Dagster resources: the lake, the feature store, experiment tracking and the endpoint, opened from settings."""

from ml_assets.resources.feature_store import FeatureStoreResource
from ml_assets.resources.lake import LakeResource
from ml_assets.resources.serving import ServingResource
from ml_assets.resources.tracking import TrackingResource

__all__ = ["FeatureStoreResource", "LakeResource", "ServingResource", "TrackingResource"]
