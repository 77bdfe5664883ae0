"""The lake as a Dagster resource."""

from pathlib import Path

import dagster as dg

from ml_assets.lake import Lake


class LakeResource(dg.ConfigurableResource):
    """Tables of all models, below one folder."""

    root: str

    def open(self) -> Lake:
        return Lake(Path(self.root))
