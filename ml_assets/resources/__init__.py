"""Dagster resources: lake, feature store, compute, experiment tracking and endpoint, opened from settings."""

from ml_assets.resources.compute import ComputeResource
from ml_assets.resources.feature_store import FeatureStoreResource
from ml_assets.resources.lake import LakeResource
from ml_assets.resources.serving import ServingResource
from ml_assets.resources.tracking import TrackingResource

__all__ = ["ComputeResource", "FeatureStoreResource", "LakeResource", "ServingResource", "TrackingResource"]
