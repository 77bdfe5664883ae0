"""What became of the requests to a variant of a SageMaker endpoint: counts from CloudWatch, scores from captured data.

CloudWatch has no histograms, but counts the values below a bound (the statistic `TC`, trimmed count), so a histogram is
one question for each edge.
"""

import json
import math
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import numpy as np

from ml_assets.deployment.aws_requests import ask
from ml_assets.deployment.targets import Histogram, Side

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
EDGES = tuple(np.linspace(0.05, 0.95, 19).round(2).tolist())  # of scores of classes
NAMESPACE = "AWS/SageMaker"


def observed(
    cloudwatch: Any,
    s3: Any | None,
    where: str,
    endpoint: str,
    variant: str,
    since: datetime,
    captured: str,
    edges: tuple[float, ...],
    golden: int,
) -> Side:
    """One side of an observation.

    Args:
        s3: where data is captured; None where it is not.
        captured: bucket/prefix of it.
        edges: of the histogram of scores.
        golden: golden rows that were answered otherwise just now.
    """
    statistics = {"requests": ("Invocations", "Sum"), "errors": ("Invocation5XXErrors", "Sum")}
    statistics |= {"answers": ("ModelLatency", "SampleCount")}
    # Microseconds.
    statistics |= {f"below{number}": ("ModelLatency", f"TC(0:{edge * 1e6:.0f})") for number, edge in enumerate(SECONDS)}
    totals = _totals(cloudwatch, where, endpoint, variant, since, statistics)
    below = [min(totals[f"below{number}"], totals["answers"]) for number in range(len(SECONDS))]
    counts = np.diff(np.maximum.accumulate([0, *below, totals["answers"]]))
    scores, invalid = ({}, 0) if s3 is None else _scores(s3, where, endpoint, variant, since, captured, edges)
    return Side(
        requests=max(totals["requests"], totals["errors"]),
        errors=totals["errors"],
        invalid=invalid,
        golden=golden,
        latency=Histogram(SECONDS, tuple(counts.tolist())),
        scores=scores,
    )


def _totals(
    cloudwatch: Any, where: str, endpoint: str, variant: str, since: datetime, statistics: dict[str, tuple[str, str]]
) -> Counter[str]:
    """Sums over all minutes since then, by name."""
    dimensions = [{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": variant}]
    queries = [
        {
            "Id": name,
            "MetricStat": {
                "Metric": {"Namespace": NAMESPACE, "MetricName": metric, "Dimensions": dimensions},
                "Period": 60,
                "Stat": statistic,
            },
        }
        for name, (metric, statistic) in statistics.items()
    ]
    # The minute in which the step began is shared with the one before it.
    begin = since.astimezone(UTC).replace(second=0, microsecond=0)
    totals: Counter[str] = Counter()
    token: dict[str, Any] = {}
    while True:
        page = ask(
            cloudwatch,
            where,
            "GetMetricData",
            MetricDataQueries=queries,
            StartTime=begin,
            EndTime=datetime.now(UTC),
            **token,
        )
        for each in page["MetricDataResults"]:
            totals[each["Id"]] += round(sum(each["Values"]))
        if "NextToken" not in page:
            return totals
        token = {"NextToken": page["NextToken"]}


def _scores(
    s3: Any, where: str, endpoint: str, variant: str, since: datetime, captured: str, edges: tuple[float, ...]
) -> tuple[dict[str, Histogram], int]:
    """Histogram of the scores of captured answers, and how many answers are none."""
    bucket, _, prefix = captured.partition("/")
    found: dict[str, list[float]] = {}
    invalid = 0
    token: dict[str, Any] = {}
    folder = f"{prefix}/{endpoint}/{variant}/"
    while True:
        page = ask(s3, where, "ListObjectsV2", Bucket=bucket, Prefix=folder, **token)
        for item in page.get("Contents", []):
            if item["LastModified"] < since:
                continue
            lines = ask(s3, where, "GetObject", Bucket=bucket, Key=item["Key"])["Body"].read().splitlines()
            for line in filter(None, lines):
                invalid += _take(json.loads(line), since, found)
        if not page.get("IsTruncated"):
            break
        token = {"ContinuationToken": page["NextContinuationToken"]}
    return {name: _histogram(values, edges) for name, values in found.items()}, invalid


def _take(record: dict[str, Any], since: datetime, found: dict[str, list[float]]) -> int:
    """Add the scores of one captured request; how many of its answers are none."""
    when = datetime.fromisoformat(record["eventMetadata"]["inferenceTime"].replace("Z", "+00:00"))
    output = record["captureData"].get("endpointOutput", {})
    if when < since or output.get("encoding") != "JSON":
        return 0
    invalid = 0
    for answer in json.loads(output["data"]).get("predictions", []):
        said = answer.get("scores") or {name: answer[name] for name in ("score", "value") if name in answer}
        numbers = {name: value for name, value in said.items() if isinstance(value, int | float)}
        if not said or len(numbers) < len(said) or not all(map(math.isfinite, numbers.values())):
            invalid += 1
            continue
        for name, value in numbers.items():
            found.setdefault(name, []).append(float(value))
    return invalid


def _histogram(values: list[float], edges: tuple[float, ...]) -> Histogram:
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    return Histogram(edges, tuple(counts.tolist()))
