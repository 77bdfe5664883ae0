"""Where rows, outcomes and side tables come from."""

import codecs
from typing import Annotated, Any, ClassVar, Literal, Self
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field, model_validator

from ml_assets.durations import Duration
from ml_assets.spec.base import Day, Name, Share, Spec, Text


def _known_zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError(f"{name!r} is no time zone; write one like Europe/Berlin")
    return name


def _known_encoding(name: str) -> str:
    if name == "utf8-lossy":  # Polars' own: damaged bytes become U+FFFD, which rejects their rows
        return name
    try:
        codecs.lookup(name)
    except LookupError:
        raise ValueError(f"{name!r} is no encoding that Python knows; write one like utf8, latin-1 or cp1252") from None
    return name


class Csv(Spec):
    """How the text of CSV is to be read."""

    separator: str = Field(",", min_length=1, max_length=1)
    encoding: Annotated[str, AfterValidator(_known_encoding)] = Field("utf8", description="As Python names it.")
    decimal: Literal[".", ","] = Field(".", description="Decimal mark of its numbers.")
    header: bool = Field(True, description="Whether the first line names the columns; else `columns` does.")
    columns: list[str] | None = Field(None, description="Names of the columns, in order, where there is no header.")

    @model_validator(mode="after")
    def _names_from_somewhere(self) -> Self:
        if self.header == (self.columns is not None):
            raise ValueError("give `columns` exactly where `header` is false")
        return self


class Limits(Spec):
    """What a partition's rows must keep, or it is refused before anything of it is written."""

    rejected: Share = Field(0.5, description="Largest share of rows that may break the contract.")
    min_rows: int = Field(0, ge=0, description="Fewest rows that a partition with any batch may have.")
    columns: dict[str, Share] = Field({}, description="Largest share of rows that may break a check of one column.")


class SourceSpec(Spec):
    """What all kinds of sources have in common."""

    null_values: list[str] = Field([""], description="Texts that stand for a missing value.")
    limits: Limits = Limits()
    list_every: Duration = Field("15m", description="Where a tick can do without a listing: it is made so often.")

    # What says where the rows are, or when they are good enough or asked for again; not how they are read.
    _NOT_READING: ClassVar[frozenset[str]] = frozenset(
        {"limits", "uri", "url", "database", "token", "list_every", "queue", "look_back", "overlap"}
    )

    @property
    def csv_options(self) -> Csv:
        return Csv()

    def reading(self) -> dict[str, Any]:
        """What decides how the same batch is read, JSON-like."""
        return self.model_dump(exclude=set(self._NOT_READING))


class FilesSource(SourceSpec):
    """Files in a folder or below an S3 prefix, each of them one batch."""

    kind: Literal["files"]
    uri: Text = Field(description="Path or s3:// address with `*` and `**`.")
    format: Literal["parquet", "csv", "jsonl"] | None = Field(None, description="Default: by the file's ending.")
    csv: Csv = Csv()
    queue: Text | None = Field(
        None,
        description="URL of an SQS queue of S3 event notifications; saves listing while nothing arrives. Each model "
        "and environment needs one of its own, because messages are deleted once read.",
    )

    @model_validator(mode="after")
    def _queue_belongs_to_s3(self) -> Self:
        if self.queue is not None and not self.uri.startswith(("s3://", "{{")):
            raise ValueError("`queue` needs an s3:// address in `uri`")
        return self

    @property
    def csv_options(self) -> Csv:
        return self.csv

    @property
    def where(self) -> str:
        return self.uri


class SqlSource(SourceSpec):
    """A table or view of a SQL database. Each day of the event time is one batch, and is always read whole."""

    kind: Literal["sql"]
    database: Name = Field(description="Its SQLAlchemy URL is in ML_ASSETS_DATABASE_<NAME>.")
    table: str = Field(min_length=1, description="Table or view, with its schema if it has one: `sales.orders`.")
    watermark: str = Field(min_length=1, description="Column with the time of a row's last change.")
    overlap: Duration = Field("1h", description="How late a change may be committed and still be found at once.")
    list_every: Duration = Field("10m", description="All days are compared at least so often; finds deleted rows.")

    @property
    def where(self) -> str:
        return f"{self.database}: {self.table}"


class HttpSource(SourceSpec):
    """An HTTP address that answers with JSON or CSV, in pages or at once."""

    kind: Literal["http"]
    url: Text = Field(description="With `{day}` in it there is one address, and one batch, for each day.")
    format: Literal["json", "csv"] = "json"
    csv: Csv = Csv()
    records: str | None = Field(None, description="JSON: path of the list of rows, such as `data.items`.")
    next: str | None = Field(
        None, description="JSON: path of the next page's address; default: the Link header, if there is one."
    )
    token: Name | None = Field(None, description="The bearer token is in ML_ASSETS_TOKEN_<NAME>.")
    look_back: int = Field(3, ge=0, description="With `{day}`: days before today that are asked for at every tick.")
    list_every: Duration = Field("1h", description="With `{day}`: all days are asked for at least so often.")

    @property
    def csv_options(self) -> Csv:
        return self.csv

    @property
    def where(self) -> str:
        return self.url


class Days(Spec):
    """One snapshot, or partitions by the day of the contract's event time."""

    batch: Literal["snapshot", "day"] = Field("snapshot", description="`day` partitions by the event time.")
    start: Day | None = Field(None, description="First daily partition; needed with `batch: day`.")
    end: Day | None = Field(None, description="Last daily partition of a source that is complete; default: today's.")
    timezone: Annotated[str, AfterValidator(_known_zone)] = Field("UTC", description="Where a day begins and ends.")

    @model_validator(mode="after")
    def _start_belongs_to_days(self) -> Self:
        if (self.batch == "day") != (self.start is not None):
            raise ValueError("`batch: day` needs `start`, the first day; a snapshot has none")
        if self.end is not None and (self.start is None or self.end < self.start):
            raise ValueError(f"end {self.end} needs `batch: day` and a start before it")
        return self


class OutcomeKey(Spec):
    """How outcomes that arrive later find their rows."""

    key: list[str] = Field(min_length=1, description="Columns that say to which row an outcome belongs.")


class FilesRows(FilesSource, Days):
    """The model's rows, in files."""


class SqlRows(SqlSource, Days):
    """The model's rows, in a SQL database."""


class HttpRows(HttpSource, Days):
    """The model's rows, behind an HTTP address."""

    @model_validator(mode="after")
    def _day_belongs_to_days(self) -> Self:
        if "{day}" in self.url and self.batch != "day":
            raise ValueError("`{day}` in `url` needs `batch: day`")
        return self


class FilesOutcomes(FilesSource, OutcomeKey):
    """Outcome and target columns that arrive later, in files of their own."""


class SqlOutcomes(SqlSource, OutcomeKey):
    """Outcome and target columns that arrive later, in a table of their own."""


class HttpOutcomes(HttpSource, OutcomeKey):
    """Outcome and target columns that arrive later, behind an address of their own."""


AnySource = FilesSource | SqlSource | HttpSource
SideSource = Annotated[AnySource, Field(discriminator="kind")]
Source = Annotated[FilesRows | SqlRows | HttpRows, Field(discriminator="kind")]
Outcomes = Annotated[FilesOutcomes | SqlOutcomes | HttpOutcomes, Field(discriminator="kind")]
