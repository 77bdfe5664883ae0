"""The graph of one model. One file per asset, in the order in which data flows:

raw_data → cleaned_data + rejected_rows, side tables → outcomes → groups → features → trained_model → metrics → endpoint
                                                       side tables, groups → online_features
endpoint → predictions → feedback ← outcomes
           predictions, feedback → monitoring

Assets are thin: they read tables, call plain functions, and return values with metadata and checks.
"""

import dagster as dg

from ml_assets.assets.cleaned_data import cleaned_data
from ml_assets.assets.endpoint import endpoint
from ml_assets.assets.features import features
from ml_assets.assets.feedback import feedback
from ml_assets.assets.groups import groups
from ml_assets.assets.lookups import lookups
from ml_assets.assets.metrics import metrics
from ml_assets.assets.monitoring import monitoring
from ml_assets.assets.online_features import ASSET as ONLINE
from ml_assets.assets.online_features import online_features
from ml_assets.assets.outcomes import outcomes
from ml_assets.assets.predictions import predictions
from ml_assets.assets.raw_data import raw_data
from ml_assets.assets.trained_model import trained_model
from ml_assets.model import Model

JUDGED = ("trained_model", "metrics", "endpoint")
SERVED = ("predictions", "feedback", "monitoring")


def build_assets(model: Model) -> list[dg.AssetsDefinition]:
    """All assets of one model."""
    return [
        raw_data(model),
        cleaned_data(model),
        *lookups(model),
        outcomes(model),
        *groups(model),
        *([online_features(model)] if model.views else []),
        features(model),
        trained_model(model),
        metrics(model),
        endpoint(model),
        predictions(model),
        feedback(model),
        monitoring(model),
    ]


def data_assets(model: Model) -> list[str]:
    """Everything before training, in the order in which data flows."""
    online = [ONLINE] if model.views else []
    return ["raw_data", "cleaned_data", "rejected_rows", *model.lookups, "outcomes", *model.groups, "features", *online]


def partitioned_assets(model: Model) -> list[str]:
    """Data assets that have the partitions of the rows: all but the side tables of a daily source without days."""
    whole = [name for name, feed in model.lookup_feeds.items() if model.daily and feed.calendar is None]
    return [each for each in data_assets(model) if each not in (*whole, ONLINE)]
