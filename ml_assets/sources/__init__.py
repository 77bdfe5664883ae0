"""Where data comes from: list what is there with a fingerprint each, and read one batch.

A source never writes, and never decides what is to be done with its rows. Each kind is one small file behind the
protocol `Source` of `batch.py`.
"""

from ml_assets.access import Access
from ml_assets.sources.batch import Batch, Calendar, Source
from ml_assets.sources.files import FileSource, LocalObjects
from ml_assets.sources.http import HttpBatches
from ml_assets.sources.s3 import S3Objects
from ml_assets.spec.sources import AnySource, FilesSource, HttpSource

__all__ = ["Batch", "Calendar", "Source", "open_source"]


def open_source(spec: AnySource, place: str, access: Access | None = None, calendar: Calendar | None = None) -> Source:
    """The source that `spec` declares; nothing is listed or connected yet.

    Args:
        calendar: its partitions by day; None for a snapshot.
    """
    access = access or Access()
    if isinstance(spec, FilesSource):
        if spec.uri.startswith("s3://"):
            return FileSource(spec, S3Objects(spec, access.s3_endpoint_url, place), place)
        return FileSource(spec, LocalObjects(spec.uri, place), place)
    if isinstance(spec, HttpSource):
        return HttpBatches(spec, place, access, calendar)
    from ml_assets.sources.sql import SqlTable

    return SqlTable(spec, place, access.databases.get(spec.database), calendar)
