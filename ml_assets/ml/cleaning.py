"""From rows as they arrived to rows that keep the contract: parse, validate, quarantine, drop duplicates.

Nothing is dropped silently: of the rows given, each is in the cleaned rows, in the rejected rows with its reasons, or
counted as a duplicate.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import polars as pl

from ml_assets.contract import SURROGATE_KEY, Contract
from ml_assets.errors import BatchRefusedError
from ml_assets.lake import PARTITION, by_partition
from ml_assets.ml.parsing import Reading, parse_column, read_columns
from ml_assets.ml.validation import TABLE, failure_cases, rowwise

SOURCE, ROW = "_source", "_row"  # where a raw row came from: batch, and row number in it
STRAY = "_stray"  # its time is none, or lies outside of the calendar
REJECTED_SCHEMA: dict[str, Any] = {SOURCE: pl.String, ROW: pl.Int64, "reasons": pl.String, "row": pl.String}
Hook = Callable[[pd.DataFrame], pd.DataFrame]


@dataclass(frozen=True)
class Judged:
    """How many of some raw rows break the contract.

    Attributes:
        rejected: their number.
        failures: for each column (or `(table)`) the number of rows that break one of its checks.
    """

    rejected: int = 0
    failures: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Cleaned:
    """What became of some raw rows: cleaned + rejected + duplicates = rows given.

    Attributes:
        rows: the contract's columns, typed, unique by key, in key order. Without a key in the contract rows that are
            equal in all columns are duplicates, and `_key` identifies the others.
        rejected: `_source`, `_row`, `reasons` (JSON list of column, check, value) and `row` (JSON) per rejected row.
        duplicates: rows that gave way to a later row with the same key.
        failures: for each column (or `(table)`) the number of rows that broke one of its checks.
    """

    rows: pl.DataFrame
    rejected: pl.DataFrame
    duplicates: int
    failures: dict[str, int]

    @property
    def judged(self) -> Judged:
        return Judged(self.rejected.height, self.failures)

    @classmethod
    def empty(cls, contract: Contract) -> "Cleaned":
        """What becomes of no rows."""
        own: dict[str, pl.DataType] = {} if contract.having("key") else {SURROGATE_KEY: pl.String()}
        return cls(pl.DataFrame(schema=dict(contract.types) | own), pl.DataFrame(schema=REJECTED_SCHEMA), 0, {})


@dataclass(frozen=True)
class Read:
    """Raw rows read by the contract.

    Attributes:
        numbered: the raw rows with `_index`.
        parsed: the contract's columns in its types.
        reasons: why rows break the contract, shape of `_REASONS`.
        refused: partitions that break a check as a whole.
    """

    numbered: pl.DataFrame
    parsed: pl.DataFrame
    reasons: pl.DataFrame
    refused: dict[str, BatchRefusedError]

    def with_partition(self, reasons: pl.DataFrame) -> pl.DataFrame:
        return reasons.with_columns(self.numbered.get_column(PARTITION).gather(reasons["_index"]))


def read_rows(
    raw: pl.DataFrame,
    contract: Contract,
    *,
    null_values: Sequence[str] = ("",),
    decimal: str = ".",
    place: str,
) -> Read:
    """Parse and validate, once and lazily.

    Args:
        raw: the contract's columns in any types, with `_partition`, `_source`, `_row` and `_stray`.
        contract: decides about each row.
        null_values: texts that stand for a missing value.
        decimal: decimal mark of numbers that arrived as text.
        place: model and table, for messages.

    Raises:
        BatchRefusedError: if a column of the contract is missing.
    """
    arriving = contract.arriving
    missing = [name for name in arriving.types if name not in raw.columns]
    if missing:
        raise BatchRefusedError(
            f"{place}: column {', '.join(map(repr, missing))} of the contract is missing in "
            f"{', '.join(raw[SOURCE].unique().sort().head(3))}; it has {', '.join(_arrived(raw))}. "
            "Nothing of it was written: mend the file, or the contract if the column is gone for good"
        )
    numbered = raw.with_row_index("_index")
    parsed, unparsed = _parse(numbered, arriving, Reading(tuple(null_values), decimal))
    found, refused = _violations(parsed, arriving, place)
    return Read(numbered, parsed, pl.concat([unparsed, _strays(numbered, arriving), found]), refused)


def judge(read: Read) -> dict[str, Judged | BatchRefusedError]:
    """How many rows of each partition `clean` would reject without a hook, and why."""
    broken = by_partition(read.with_partition(read.reasons))
    done: dict[str, Judged | BatchRefusedError] = dict(read.refused)
    for partition in read.numbered.get_column(PARTITION).unique().sort():
        if partition in broken:
            rows = broken[partition]
            done.setdefault(partition, Judged(rows.get_column("_index").n_unique(), _count(rows)))
        else:
            done.setdefault(partition, Judged())
    return done


def clean(
    read: Read, contract: Contract, *, hook: Hook | None = None, place: str
) -> dict[str, Cleaned | BatchRefusedError]:
    """Sort raw rows into cleaned, rejected and duplicate ones, for each of the partitions that they belong to.

    What concerns one row is done for all rows at once; what concerns a day (the hook, duplicates, checks over the whole
    table) is done day by day, so that it makes no difference which days are cleaned together.

    Args:
        contract: decided about each row, and does once more after the hook, which also has to set a derived target.
        hook: the user's own `clean(df)`; may drop rows and set outcome and target columns.
        place: model and table, for messages.

    Returns:
        What became of each partition's rows. A partition is refused if a check over its whole table fails or the hook
        does what it may not.
    """
    numbered, reasons, refused = read.numbered, read.reasons, dict(read.refused)
    good = _without(read.parsed, reasons)
    if hook is not None:
        good, dropped, failed = _run_hook(good, contract, hook, place)
        found, broken = _violations(good, contract, place)
        good, reasons = _without(good, found), pl.concat([reasons, dropped, found])
        refused |= failed | broken
    counted = dict(good.get_column(PARTITION).value_counts().iter_rows())
    kept = by_partition(_without_duplicates(good, numbered, contract))
    rejected = by_partition(_rejected(numbered, reasons, contract.arriving))
    broken_rows = by_partition(read.with_partition(reasons))
    nothing = Cleaned.empty(contract)
    done: dict[str, Cleaned | BatchRefusedError] = dict(refused)
    for partition in numbered.get_column(PARTITION).unique().sort():
        if partition not in refused:
            rows = kept.get(partition, nothing.rows)
            done[partition] = Cleaned(
                rows,
                rejected.get(partition, nothing.rejected),
                counted.get(partition, 0) - rows.height,
                _count(broken_rows[partition]) if partition in broken_rows else {},
            )
    return done


def _without_duplicates(good: pl.DataFrame, numbered: pl.DataFrame, contract: Contract) -> pl.DataFrame:
    """One row per key and day: the one that arrived in the later batch or, within a batch, further down."""
    key = contract.having("key") or list(contract.types)
    whose = [PARTITION, *key]
    arrival = numbered.select(pl.col(SOURCE).rank("dense"), ROW)[good.get_column("_index")]
    ordered = good.with_columns(arrival).sort(*whose, SOURCE, ROW)
    followed = pl.all_horizontal(pl.col(name).eq_missing(pl.col(name).shift(-1)) for name in whose)
    last = pl.int_range(pl.len()) == pl.len() - 1
    kept = ordered.filter(~followed | last).select(PARTITION, *contract.types)
    return kept if contract.having("key") else _with_surrogate_key(kept, contract)


def _with_surrogate_key(rows: pl.DataFrame, contract: Contract) -> pl.DataFrame:
    """Identify rows by a hash of what is known beforehand, and a number among rows that are equal in that."""
    known = contract.beforehand
    texts = rows.select(pl.concat_str([pl.col(name).cast(pl.String).fill_null("") for name in known], separator="\x1f"))
    hashes = [hashlib.blake2b(text.encode(), digest_size=12).hexdigest() for text in texts.to_series()]
    hashed = rows.with_columns(pl.Series(SURROGATE_KEY, hashes, dtype=pl.String))
    number = pl.int_range(pl.len()).over(PARTITION, SURROGATE_KEY).cast(pl.String)
    return hashed.with_columns(pl.concat_str(SURROGATE_KEY, pl.lit("-"), number))


def _without(frame: pl.DataFrame, reasons: pl.DataFrame) -> pl.DataFrame:
    if reasons.is_empty():
        return frame
    return frame.filter(~pl.col("_index").is_in(reasons.get_column("_index").unique().implode()))


def _arrived(raw: pl.DataFrame) -> list[str]:
    return [name for name in raw.columns if not name.startswith("_")]


_REASONS = {"_index": pl.UInt32, "column": pl.String, "check": pl.String, "value": pl.String}


_DAMAGE = ["\ufffd", "\x00"]  # what lossy decoding leaves for bytes that are no text, and what binary files are full of


def _parse(numbered: pl.DataFrame, contract: Contract, reading: Reading) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The contract's columns in its types; a value that cannot be one is null and has a reason."""
    columns = [numbered.get_column("_index"), numbered.get_column(PARTITION)]
    reasons = [pl.DataFrame(schema=_REASONS)]
    for name, (given, read) in read_columns(numbered, contract.types, reading).items():
        kind, typed = contract.types[name], read
        if read.dtype.is_float() and (infinite := read.is_infinite()).any():  # no model can learn from such a number
            typed = read.set(infinite, None)
        columns.append(typed)
        reasons.append(_reasons(numbered, given.is_not_null() & typed.is_null(), given, f"is a {kind}"))
        if given.dtype == pl.String and not kind.is_numeric():
            damaged = (given.str.contains_any(_DAMAGE) & typed.is_not_null()).fill_null(False)
            reasons.append(_reasons(numbered, damaged, given, "has no damaged characters"))
    return pl.DataFrame(columns), pl.concat(reasons)


def _reasons(numbered: pl.DataFrame, broken: pl.Series, values: pl.Series, check: str) -> pl.DataFrame:
    if not broken.any():
        return pl.DataFrame(schema=_REASONS)
    found = values.filter(broken)
    try:
        texts = found.cast(pl.String)
    except pl.exceptions.PolarsError:  # bytes and nested values
        texts = pl.Series(values.name, [str(each) for each in found.to_list()], dtype=pl.String)
    index = numbered.get_column("_index").filter(broken)
    return pl.DataFrame({"_index": index, "column": values.name, "check": check, "value": texts}, schema=_REASONS)


def _strays(numbered: pl.DataFrame, contract: Contract) -> pl.DataFrame:
    """Rows whose time exists but lies outside of the calendar; where there is no time the contract says so itself."""
    time = contract.event_time or contract.known_at
    if time is None:
        return pl.DataFrame(schema=_REASONS)
    return numbered.filter(pl.col(STRAY) & pl.col(time).is_not_null()).select(
        "_index",
        column=pl.lit(time),
        check=pl.lit("lies within the calendar of the source"),
        value=pl.col(time).cast(pl.String),
    )


def _violations(
    parsed: pl.DataFrame, contract: Contract, place: str
) -> tuple[pl.DataFrame, dict[str, BatchRefusedError]]:
    """Each broken check of each row, and the partitions that break a check as a whole."""
    reasons, refused = [pl.DataFrame(schema=_REASONS)], {}
    tables = [parsed] if rowwise(contract.schema) else parsed.partition_by(PARTITION)
    for table in tables:
        cases = failure_cases(contract.schema, table)
        wide = cases.filter(pl.col("index").is_null())
        if wide.height:
            first = wide.row(0, named=True)
            for partition in table.get_column(PARTITION).unique():
                refused[partition] = BatchRefusedError(
                    f"{place} {partition}: the check {first['check']} of {first['column']} fails for the table as a "
                    f"whole, so that no row can be told from the others: {first['failure_case']}"
                )
            continue
        whole_row = pl.col("schema_context") == "DataFrameSchema"
        found = cases.select(
            _position=pl.col("index").cast(pl.UInt32),
            column=pl.when(whole_row).then(pl.lit(TABLE)).otherwise("column"),
            check="check",
            value=pl.when(~whole_row).then("failure_case"),
        )
        order = table.select("_index").with_row_index("_position")
        reasons.append(found.join(order, on="_position", how="left").select(list(_REASONS)))
    return pl.concat(reasons), refused


def _run_hook(
    good: pl.DataFrame, contract: Contract, hook: Hook, place: str
) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, BatchRefusedError]]:
    """Run the user's `clean(df)` on each day's rows that keep the contract; rows that it drops are rejected rows."""
    after = [pl.DataFrame(schema={"_index": pl.UInt32, PARTITION: pl.String} | dict(contract.types))]
    dropped, refused = [pl.DataFrame(schema=_REASONS)], {}
    for day in good.partition_by(PARTITION):
        partition = day.item(0, PARTITION)
        try:
            returned = _hooked(day, contract, hook, f"{place} {partition}")
        except BatchRefusedError as error:
            refused[partition] = error
            continue
        after.append(returned.with_columns(pl.lit(partition).alias(PARTITION)).select(after[0].columns))
        dropped.append(
            day.filter(~pl.col("_index").is_in(returned["_index"].implode()))
            .select("_index")
            .with_columns(column=pl.lit(TABLE), check=pl.lit("dropped by clean(df)"), value=pl.lit(None, pl.String))
        )
    return pl.concat(after), pl.concat(dropped), refused


def _hooked(day: pl.DataFrame, contract: Contract, hook: Hook, place: str) -> pl.DataFrame:
    """What the hook makes of one day, in the contract's types.

    Raises:
        BatchRefusedError: if it fails, changes a column that a request carries too, or returns a value that cannot
            be what the contract says.
    """
    given = day.drop(PARTITION).to_pandas().set_index("_index")
    try:
        returned = hook(given.copy())
    except Exception as error:
        raise BatchRefusedError(f"{place}: clean(df) raised {type(error).__name__}: {error}") from error
    if not isinstance(returned, pd.DataFrame) or not returned.index.isin(given.index).all():
        raise BatchRefusedError(f"{place}: clean(df) must return a data frame with the index of the one it was given")
    if missing := [name for name in contract.types if name not in returned.columns]:
        raise BatchRefusedError(
            f"{place}: clean(df) returned no column {', '.join(map(repr, missing))} of the contract"
        )
    loose = pl.from_pandas(returned[list(contract.types)].reset_index(names="_index"))
    typed = [parse_column(loose[name], kind) for name, kind in contract.types.items()]
    for given_back, read in zip(loose.select(list(contract.types)), typed, strict=True):
        if read.null_count() > given_back.null_count():
            example = given_back.filter(read.is_null() & given_back.is_not_null())[0]
            raise BatchRefusedError(
                f"{place}: clean(df) returned {given_back.name!r} as {given_back.dtype} with {example!r}, "
                f"the contract says {read.dtype}"
            )
    after = pl.DataFrame([loose["_index"].cast(pl.UInt32), *typed]).sort("_index")
    before = day.filter(pl.col("_index").is_in(after["_index"].implode())).sort("_index")
    for name in contract.beforehand:
        if not before[name].equals(after[name], null_equal=True):
            raise BatchRefusedError(
                f"{place}: clean(df) changed {name!r}, which a request carries too, where clean(df) does not run; "
                "make it a feature instead"
            )
    return after


def _rejected(numbered: pl.DataFrame, reasons: pl.DataFrame, contract: Contract) -> pl.DataFrame:
    """Rejected rows with their reasons. Which other columns there are, and in which order, depends on what else arrived
    and when: of those a row has the ones in which it has a value.
    """
    if reasons.is_empty():
        return pl.DataFrame(schema={PARTITION: pl.String} | REJECTED_SCHEMA)
    told = reasons.group_by("_index", maintain_order=True).agg(pl.struct("column", "check", "value").alias("why"))
    bad = numbered.join(told, on="_index", how="inner").sort(SOURCE, ROW)
    others = sorted(set(_arrived(numbered)) - set(contract.types))
    rows = [
        {
            # JSON has no word for these numbers.
            name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in row.items()
            if name in contract.types or value is not None
        }
        for row in bad.select(*contract.types, *others).to_dicts()
    ]
    return bad.select(
        PARTITION,
        SOURCE,
        pl.col(ROW).cast(pl.Int64),
        pl.Series("reasons", [json.dumps(each) for each in bad["why"].to_list()], dtype=pl.String),
        pl.Series("row", [json.dumps(each, default=str) for each in rows], dtype=pl.String),
    )


def _count(reasons: pl.DataFrame) -> dict[str, int]:
    counts = reasons.group_by("column").agg(pl.col("_index").n_unique()).sort("column")
    return dict(counts.iter_rows())
