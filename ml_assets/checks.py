"""From a pandera schema to Dagster asset checks: one per column and one for the table as a whole.

A run over many days emits one evaluation per check, and the latest hides older ones. So a check of a partitioned table
speaks of all its current days, by the counts in their records, and names the days that fail.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg
import pandera.polars as pa

from ml_assets.ml.validation import TABLE
from ml_assets.records import Problem, Record

WHOLE_TABLE = "whole_table"


def column_check(column: str) -> str:
    """Name of a column's check, in the letters that Dagster takes."""
    return "column_" + re.sub(r"\W", "_", column)


def check_specs(key: dg.AssetKey, schema: pa.DataFrameSchema, *, blocking: bool) -> list[dg.AssetCheckSpec]:
    """A check for each column of `schema` and one for what concerns the whole row or table."""
    specs = [
        dg.AssetCheckSpec(
            column_check(name),
            asset=key,
            blocking=blocking,
            description="; ".join([str(column.dtype), "null allowed" if column.nullable else "never null"])
            + "".join(f"; {check.error or check.name}" for check in column.checks),
        )
        for name, column in schema.columns.items()
    ]
    wide = "; ".join(str(check.description or check.name) for check in schema.checks)
    return [
        *specs,
        dg.AssetCheckSpec(WHOLE_TABLE, asset=key, blocking=blocking, description=wide or "columns and types"),
    ]


def check_results(
    key: dg.AssetKey,
    schema: pa.DataFrameSchema,
    failures: Mapping[str, Mapping[str, int]],
    *,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> Iterable[dg.AssetCheckResult]:
    """Evaluations of what `check_specs` declared.

    Args:
        failures: for each partition of the table what `count_failures` said of it.
    """
    for name in [*schema.columns, TABLE]:
        days = {partition: counts[name] for partition, counts in failures.items() if counts.get(name)}
        metadata: dict[str, dg.MetadataValue] = {
            "failing_rows": dg.MetadataValue.int(sum(days.values())),
            "partitions": dg.MetadataValue.int(len(failures)),
        }
        if days:
            metadata["failing_partitions"] = dg.MetadataValue.table(
                [
                    dg.TableRecord({"partition": day, "failing_rows": count})
                    for day, count in sorted(days.items())[-100:]
                ]
            )
        yield dg.AssetCheckResult(
            passed=not days,
            asset_key=key,
            check_name=WHOLE_TABLE if name == TABLE else column_check(name),
            severity=severity,
            metadata=metadata,
        )


CONSERVATION = "rows_are_conserved"
LABELS = "rows_are_labelled_or_counted"


def labels_spec(key: dg.AssetKey) -> dg.AssetCheckSpec:
    """The check that no row is lost or doubled on the way from cleaned to labelled and to a side of the split."""
    return dg.AssetCheckSpec(
        LABELS,
        asset=key,
        blocking=True,
        description="cleaned = labelled - from feedback + not yet labelled + before the window; "
        "labelled = trained on + validation + test + gap",
    )


def labels_result(key: dg.AssetKey, counts: Mapping[str, int]) -> dg.AssetCheckResult:
    """Whether the rows of a training add up."""
    sides = sum(counts[name] for name in ("trained_on", "validation", "test", "gap"))
    of_source = counts["labelled"] - counts["from_feedback"]
    made = of_source + counts["not_yet_labelled"] + counts["before_window"]
    return dg.AssetCheckResult(
        passed=counts["cleaned"] == made and counts["labelled"] == sides,
        asset_key=key,
        check_name=LABELS,
        metadata={name: dg.MetadataValue.int(count) for name, count in counts.items()},
    )


ACCEPTANCE = "every_batch_is_accepted"


def acceptance_spec(key: dg.AssetKey) -> dg.AssetCheckSpec:
    """The check that nothing that arrived is refused, unreadable or out of reach. The sensor evaluates it."""
    return dg.AssetCheckSpec(ACCEPTANCE, asset=key, description="no batch is refused, unreadable or out of reach")


def acceptance(problems: Mapping[str, Problem]) -> dict[str, Any]:
    """Whether everything that arrived was taken; an error once it is a case for a person.

    Returns:
        Keyword arguments of the check's result or evaluation.
    """
    lasting = any(each.lasting for each in problems.values())
    table = [
        dg.TableRecord({"what": name, "reason": each.reason, "waits for": each.waits_for})
        for name, each in sorted(problems.items())
    ]
    return {
        "check_name": ACCEPTANCE,
        "passed": not problems,
        "severity": dg.AssetCheckSeverity.ERROR if lasting else dg.AssetCheckSeverity.WARN,
        "metadata": {"problems": dg.MetadataValue.table(table[:100])} if table else {},
    }


def conservation_spec(key: dg.AssetKey) -> dg.AssetCheckSpec:
    """The check that no row is lost or doubled on the way from raw to cleaned."""
    return dg.AssetCheckSpec(
        CONSERVATION, asset=key, blocking=True, description="raw = cleaned + rejected + duplicates, in every partition"
    )


def conservation_result(key: dg.AssetKey, records: Mapping[str, Record]) -> dg.AssetCheckResult:
    """Whether every partition's rows add up, by the counts in its record."""
    counts = {day: {"cleaned": each.rows} | each.details for day, each in records.items()}
    wrong = [
        day for day, each in counts.items() if each["raw"] != each["cleaned"] + each["rejected"] + each["duplicates"]
    ]
    totals = {
        name: dg.MetadataValue.int(sum(each[name] for each in counts.values()))
        for name in ("raw", "cleaned", "rejected", "duplicates")
    }
    return dg.AssetCheckResult(
        passed=not wrong,
        asset_key=key,
        check_name=CONSERVATION,
        metadata=totals | ({"wrong_partitions": dg.MetadataValue.json(wrong)} if wrong else {}),
    )
