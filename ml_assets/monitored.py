"""What is wrong with a model that serves, by the records of `monitoring` alone. It imports no Dagster."""

from typing import Any

from ml_assets.records import Latest, Record

ASSET = "monitoring"


def judged_days(latest: Latest) -> tuple[str | None, str | None]:
    """The latest day that is over, and the latest whose outcomes have had their time."""
    records = latest.of(ASSET)
    over = max((day for day, each in records.items() if each.details["over"] == "yes"), default=None)
    final = max((day for day, each in records.items() if each.details["final"] == "yes"), default=None)
    return over, final


def monitored(latest: Latest) -> dict[str, Any] | None:
    """What is wrong with the latest day that is over, and with the quality of the latest whose outcomes are known; None
    before any day is over.
    """
    day, quality_day = judged_days(latest)
    if day is None:
        return None
    record = latest.of(ASSET)[day]
    quality: Record | None = latest.of(ASSET)[quality_day] if quality_day else None
    return {
        "day": day,
        "alarms": record.details["alarms"],
        "wrong": record.details["wrong"],
        "quality_day": quality_day,
        "quality": quality.details["quality"] if quality else "no outcomes have had their time yet",
    }
