"""ml-assets: a folder with a contract, a few features and a YAML file becomes a production ML system.

`TabularModel` is loaded on first use, so that the endpoint server can import this package without Dagster.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml_assets.component import TabularModel as TabularModel

__version__ = "0.1.0"
__all__ = ["TabularModel", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "TabularModel":
        return import_module("ml_assets.component").TabularModel
    raise AttributeError(f"module 'ml_assets' has no attribute {name!r}")
