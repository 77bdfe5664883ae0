"""One lazy pandera validation of a table, and which rows of which partitions it finds wanting."""

import pandera.errors
import pandera.polars as pa
import polars as pl

from ml_assets.lake import PARTITION

TABLE = "(table)"  # stands for a check that concerns the whole row or table

_ELEMENTWISE = frozenset(
    {
        *("equal_to", "not_equal_to", "greater_than", "greater_than_or_equal_to", "less_than", "less_than_or_equal_to"),
        *("in_range", "isin", "notin", "str_matches", "str_contains", "str_startswith", "str_endswith", "str_length"),
        "finite",
    }
)
_NO_CASES = {"schema_context": pl.String, "column": pl.String, "check": pl.String, "failure_case": pl.String} | {
    "index": pl.Int32
}


def failure_cases(schema: pa.DataFrameSchema, frame: pl.DataFrame) -> pl.DataFrame:
    """Pandera's failure cases: context, column, check, value and row position; none where every check holds."""
    try:
        schema.validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as error:
        cases: pl.DataFrame = error.failure_cases
        return cases
    return pl.DataFrame(schema=_NO_CASES)


def rowwise(schema: pa.DataFrameSchema) -> bool:
    """Whether each check looks at one value at a time, so that validating days together or apart is the same."""
    return (
        not schema.checks
        and not schema.unique
        and all(
            not column.unique and all(check.name in _ELEMENTWISE for check in column.checks)
            for column in schema.columns.values()
        )
    )


def count_failures(schema: pa.DataFrameSchema, frame: pl.DataFrame) -> dict[str, dict[str, int]]:
    """For each partition of `frame`, and in it for each column (or `(table)`), the number of rows that break a check.

    Args:
        frame: rows with `_partition`. Partitions and columns without any failure are left out.
    """
    counts: dict[str, dict[str, int]] = {}
    for table in [frame] if rowwise(schema) else frame.partition_by(PARTITION):
        cases = failure_cases(schema, table)
        if cases.is_empty():
            continue
        own = (pl.col("schema_context") == "Column") & pl.col("column").is_in(list(schema.columns))
        place = table.select(PARTITION).with_row_index("index").with_columns(pl.col("index").cast(pl.Int32))
        named = cases.with_columns(
            pl.when(own).then("column").otherwise(pl.lit(TABLE)).alias("column"), pl.col("index").cast(pl.Int32)
        ).join(place, on="index", how="left")
        counted = named.group_by(PARTITION, "column").agg(pl.col("index").n_unique())
        for partition, column, count in counted.iter_rows():
            # A check without row positions concerns all partitions that were validated with it.
            for each in [partition] if partition is not None else table[PARTITION].unique():
                counts.setdefault(each, {})[column] = max(int(count), 1)
    return counts
