"""What is watched of a model that serves, and what it is trained again for."""

from typing import Literal

from pydantic import Field

from ml_assets.durations import Duration
from ml_assets.spec.base import Share, Spec

Severity = Literal["warn", "error"]
Cause = Literal["data", "drift", "quality"]


class DriftWatch(Spec):
    """Features and scores of a day beside those that the release was approved with."""

    alarms_per_month: float = Field(
        1.0, gt=0, le=30, description="False alarms in 30 days without drift, at most, over all features and scores."
    )
    least: float = Field(0.1, gt=0, description="Smallest PSI that counts, however certain it is.")
    by: Literal["none", "weekday"] = Field(
        "none", description="Season: a day is held against all rows that were trained on, or those of its weekday."
    )
    severity: Severity = "warn"


class QualityWatch(Spec):
    """The primary metric of a day's predictions whose outcomes are known, beside what the release promised."""

    tolerate: float = Field(
        0.1, ge=0, description="Share of the promised value by which it may be worse; beyond it, beyond its interval."
    )
    min_rows: int = Field(100, ge=20, description="Predictions with an outcome without which nothing is said.")
    severity: Severity = "error"


class ShareWatch(Spec):
    """How much of a day there may be of something."""

    most: Share = 0.05
    severity: Severity = "warn"


class RequestsWatch(Spec):
    """What became of a day's requests."""

    failed: Share = Field(0.01, description="Share of requests that the server failed to answer, at most.")
    p99_ms: float | None = Field(None, gt=0, description="99th percentile of the latency, at most.")
    severity: Severity = "error"


class Probe(Spec):
    """How the endpoint is asked whether it is there, and answers a known row as it should."""

    every: Duration = "30s"
    timeout: Duration = Field("5s", description="After which it hangs.")
    slow_ms: float = Field(1000.0, gt=0, description="An answer that takes longer is slow.")
    severity: Severity = "error"


class Monitoring(Spec):
    """What is watched day by day, and from where on it is an alarm."""

    drift: DriftWatch = DriftWatch()
    quality: QualityWatch = QualityWatch()
    unknown: ShareWatch = Field(
        ShareWatch(most=0.01), description="Rows with a category that the training did not have, by feature."
    )
    stale: ShareWatch = Field(ShareWatch(), description="Values of a group or side table that were too old or unknown.")
    rejected: ShareWatch = Field(ShareWatch(), description="Requests that were refused.")
    requests: RequestsWatch = RequestsWatch()
    probe: Probe = Probe()


class Feedback(Spec):
    """How predictions are held against what came true."""

    delay: Duration | None = Field(
        None,
        description="How long after a day nearly all its predictions' outcomes are known. Default: split.gap, else 7d.",
    )
    train: bool = Field(
        False, description="Whether predictions that the source has no row of are trained on, once their outcome came."
    )


class Retrain(Spec):
    """When a model is trained again without anybody asking for it. Changed code or parameters always train."""

    schedule: str = Field("0 3 * * *", description="Cron line of the daily safety net, in the source's time zone.")
    causes: list[Cause] = Field(["data", "drift", "quality"], description="What asks for a training, beside code.")
    min_new_rows: int = Field(1, ge=1, description="Rows in new or changed days that make a retraining worth it.")
    min_new_labels: int = Field(
        100, ge=1, description="For drift and quality: labelled rows since it began, which a training could learn from."
    )
    cooldown: Duration = Field("0s", description="Time between two trainings, at least.")
    budget: int | None = Field(None, ge=1, description="Trainings for these causes in any seven days, at most.")
