"""Files in a local folder or below an S3 prefix, as batches: Parquet, CSV (also gzip) and JSON Lines."""

import glob
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from ml_assets.errors import SourceError
from ml_assets.spec import FilesSource

_FORMATS = {"parquet": "parquet", "csv": "csv", "tsv": "csv", "data": "csv", "jsonl": "jsonl", "ndjson": "jsonl"}


@dataclass(frozen=True, order=True)
class Batch:
    """One object as it arrived.

    Attributes:
        id: its name, relative to the fixed part of the source's address.
        fingerprint: changes when the object does; it is cheap and reads no content.
    """

    id: str
    fingerprint: str


class Objects(Protocol):
    """A place with objects: a local folder or an S3 bucket."""

    def list(self) -> list[Batch]: ...

    def open(self, batch: Batch) -> bytes | Path: ...

    def address(self, batch: Batch) -> str: ...


@dataclass(frozen=True)
class FileSource:
    """Batches of one model's files.

    Attributes:
        place: model and key in its YAML, for messages.
    """

    spec: FilesSource
    objects: Objects
    place: str

    def batches(self) -> list[Batch]:
        """Everything that is there now, in name order; empty while nothing has landed.

        Raises:
            SourceError: if the root does not exist or refuses the credentials.
        """
        return self.objects.list()

    def read(self, batch: Batch, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """The rows of one batch: CSV as text, exactly as written; Parquet and JSON Lines with their own types.

        Args:
            columns: read only these, where the format allows it.

        Raises:
            SourceError: if the object is empty, damaged, or not of the declared format.
        """
        form = self.spec.format or _format_of(batch.id)
        where = f"{self.place}: {self.objects.address(batch)}"
        if form is None:
            raise SourceError(f"{where}: its ending tells no format; set source.format")
        try:
            frame = _READERS[form](self.objects.open(batch), self.spec, columns)
        except pl.exceptions.NoDataError:
            raise SourceError(f"{where} is empty; remove it or land it again") from None
        except pl.exceptions.ColumnNotFoundError as error:
            missing = str(error).splitlines()[0]
            raise SourceError(
                f"{where} lacks a column of the contract: {missing}; mend the file, or the contract"
            ) from None
        except (pl.exceptions.PolarsError, OSError, EOFError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise SourceError(f"{where} cannot be read as {form}: {reason}; land it again") from error
        if frame.is_empty():
            raise SourceError(f"{where} is empty: it holds no rows; remove it or land it again")
        return frame


def open_source(spec: FilesSource, place: str, s3_endpoint_url: str | None = None) -> FileSource:
    """The source that `spec` declares; nothing is listed or connected yet."""
    if spec.uri.startswith("s3://"):
        return FileSource(spec, S3Objects(spec.uri, s3_endpoint_url, place), place)
    return FileSource(spec, LocalObjects(spec.uri, place), place)


def fixed_part(uri: str) -> str:
    """The part of a path or address before its first wildcard, up to a slash.

    >>> fixed_part("/data/orders/*.parquet")
    '/data/orders'
    """
    return re.split(r"[*?\[]", uri, maxsplit=1)[0].rpartition("/")[0]


@dataclass(frozen=True)
class LocalObjects:
    """Files that match a pattern. A file's fingerprint is its size and time of change."""

    pattern: str
    place: str

    @property
    def root(self) -> Path:
        return Path(fixed_part(self.pattern) or ".")

    def address(self, batch: Batch) -> str:
        return str(self.root / batch.id)

    def list(self) -> list[Batch]:
        root = self.root
        if not root.is_dir():
            raise SourceError(
                f"{self.place}: the folder {root} does not exist; create it (an empty one is fine) or mend uri"
            )
        found = []
        for name in sorted(glob.glob(self.pattern, recursive=True)):
            path = Path(name)
            if path.is_file() and not path.name.startswith((".", "_")):
                stat = path.stat()
                found.append(Batch(str(path.relative_to(root)), f"{stat.st_size}-{stat.st_mtime_ns}"))
        return found

    def open(self, batch: Batch) -> Path:
        path = self.root / batch.id
        if not path.stat().st_size:
            raise SourceError(f"{self.place}: {path} is empty (0 bytes); remove it or land it again")
        return path


@dataclass(frozen=True)
class S3Objects:
    """Objects below an S3 prefix that match a pattern. An object's fingerprint is its ETag."""

    pattern: str
    endpoint_url: str | None
    place: str

    def _client(self) -> Any:
        from dagster_aws.s3 import S3Resource

        return S3Resource(endpoint_url=self.endpoint_url).get_client()

    def address(self, batch: Batch) -> str:
        return f"{fixed_part(self.pattern)}/{batch.id}"

    def list(self) -> list[Batch]:
        bucket, _, key_pattern = self.pattern.removeprefix("s3://").partition("/")
        prefix = re.split(r"[*?\[]", key_pattern, maxsplit=1)[0]
        root = fixed_part(self.pattern) + "/"
        with self._explained(bucket):
            pages = self._client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            return sorted(
                Batch(f"s3://{bucket}/{item['Key']}".removeprefix(root), item["ETag"].strip('"'))
                for page in pages
                for item in page.get("Contents", [])
                if _matches(item["Key"], key_pattern)
            )

    def open(self, batch: Batch) -> bytes:
        bucket, _, key = self.address(batch).removeprefix("s3://").partition("/")
        with self._explained(bucket):
            content: bytes = self._client().get_object(Bucket=bucket, Key=key)["Body"].read()
        if not content:
            raise SourceError(f"{self.place}: {self.address(batch)} is empty (0 bytes); remove it or land it again")
        return content

    @contextmanager
    def _explained(self, bucket: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

        try:
            yield
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if code in ("NoSuchBucket", "NoSuchKey"):
                advice = "create it or mend source.uri"
            elif status in (401, 403):
                advice = "the credentials are refused: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            else:
                advice = "see the message of S3"
            raise SourceError(f"{self.place}: s3://{bucket}: {code} ({status}): {advice}") from None
        except (NoCredentialsError, PartialCredentialsError) as error:
            advice = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            raise SourceError(f"{self.place}: s3://{bucket}: {error}; {advice}") from None
        except BotoCoreError as error:
            raise SourceError(f"{self.place}: s3://{bucket} does not answer: {error}") from None


def _matches(key: str, pattern: str) -> bool:
    """Whether an object's key matches, as a path would: `*` stays within a folder, `**/` is any number of folders, and
    names that begin with a dot or an underscore are nobody's batches."""
    if key.rsplit("/", 1)[-1].startswith((".", "_")):
        return False
    pieces = {"**/": "(?:[^/]+/)*", "*": "[^/]*", "?": "[^/]"}
    regex = "".join(pieces.get(each, re.escape(each)) for each in re.split(r"(\*\*/|\*|\?)", pattern))
    return re.fullmatch(regex, key) is not None


def _format_of(name: str) -> str | None:
    endings = name.rsplit("/", 1)[-1].lower().removesuffix(".gz").rsplit(".", 1)
    return _FORMATS.get(endings[-1]) if len(endings) > 1 else None


def _read_csv(content: bytes | Path, spec: FilesSource, columns: Sequence[str] | None) -> pl.DataFrame:
    csv = spec.csv
    frame = pl.read_csv(
        content,
        has_header=csv.header,
        new_columns=csv.columns,
        separator=csv.separator,
        encoding=csv.encoding,
        infer_schema=False,
    )
    if csv.columns is not None and frame.width != len(csv.columns):
        raise ValueError(f"{frame.width} columns where source.csv.columns names {len(csv.columns)}")
    filled = frame.filter(~pl.all_horizontal(pl.all().is_null()))  # an empty line is no row
    return filled if columns is None else filled.select(columns)


def _read_parquet(content: bytes | Path, spec: FilesSource, columns: Sequence[str] | None) -> pl.DataFrame:
    source = io.BytesIO(content) if isinstance(content, bytes) else content
    return pl.read_parquet(source, columns=list(columns) if columns is not None else None)


def _read_jsonl(content: bytes | Path, spec: FilesSource, columns: Sequence[str] | None) -> pl.DataFrame:
    frame = pl.read_ndjson(content, infer_schema_length=None)
    return frame if columns is None else frame.select(columns)


_READERS: dict[str, Callable[[bytes | Path, FilesSource, Sequence[str] | None], pl.DataFrame]] = {
    "csv": _read_csv,
    "parquet": _read_parquet,
    "jsonl": _read_jsonl,
}
