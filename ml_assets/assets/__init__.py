"""The graph of one model. One file per asset, in the order in which data flows:

raw_data → cleaned_data + rejected_rows → outcomes, features → trained_model → metrics → endpoint

Assets are thin: they read tables, call plain functions, and return values with metadata and checks.
"""

import dagster as dg

from ml_assets.assets.cleaned_data import cleaned_data
from ml_assets.assets.endpoint import endpoint
from ml_assets.assets.features import features
from ml_assets.assets.metrics import metrics
from ml_assets.assets.outcomes import outcomes
from ml_assets.assets.raw_data import raw_data
from ml_assets.assets.trained_model import trained_model
from ml_assets.model import Model

GRAPH = (raw_data, cleaned_data, outcomes, features, trained_model, metrics, endpoint)
DATA = ("raw_data", "cleaned_data", "rejected_rows", "outcomes", "features")  # partitioned like the source
JUDGED = ("trained_model", "metrics", "endpoint")


def build_assets(model: Model) -> list[dg.AssetsDefinition]:
    """All assets of one model."""
    return [build(model) for build in GRAPH]
