"""Where data comes from: list what is there with a fingerprint each, and read one batch.

A source never writes, and never decides what is to be done with its rows.
"""

from ml_assets.sources.files import Batch, FileSource, open_source

__all__ = ["Batch", "FileSource", "open_source"]
