"""What a model's tables hold after some days of serving, written by hand in the formats of the assets."""

import json
import math
import random
from datetime import UTC, date, datetime, timedelta

import polars as pl

from ml_assets.deployment.rollout import Phase, State
from ml_assets.deployment.targets import Described, Release
from ml_assets.lake import PARTITION, Lake
from ml_assets.ledger import Decision, note
from ml_assets.records import Record, append_records
from ml_assets.rollouts import LakeJournal

NOW = datetime(2026, 11, 25, 9, 30, tzinfo=UTC)
VALUES = {"roc_auc": 0.836, "f1": 0.81}


def served(
    lake: Lake,
    model: str,
    *,
    days: int,
    features: int = 12,
    versions: int = 1,
    drifts: int = 0,
    gaps: bool = False,
    primary: str = "roc_auc",
    hostile: str = "",
) -> None:
    """Write what the assets would have left.

    Args:
        days: up to yesterday, and today so far.
        versions: each served for the same number of days.
        drifts: features that drift in the last tenth of the days, in which quality falls too.
        gaps: nobody asks on Sundays.
        hostile: name of a category, a reason and a feature.
    """
    chance, today = random.Random(1), NOW.date()
    first = today - timedelta(days=days - 1)
    names = [f"feature_{each:02}" for each in range(features - 6)]
    names = [
        "distance_km",
        "value_per_item",
        "weather",
        "restaurant_history_minutes_late_mean",
        "zone",
        "weekday",
        *names,
    ]
    names = [hostile, *names[1:features]] if hostile else names[:features]
    rows: list[dict[str, object]] = []

    def add(day: date, subject: str, name: str, value: float | None, count: int, **others: object) -> None:
        empty = {
            "version": "",
            "lower": None,
            "upper": None,
            "limit": None,
            "p_value": None,
            "alarm": False,
            "note": "",
        }
        line = {PARTITION: str(day), "subject": subject, "name": name, "value": value, "rows": count}
        rows.append(line | empty | others)

    for number in range(days):
        day = first + timedelta(days=number)
        if gaps and day.isoweekday() == 7:
            continue
        newest = 1 + number * versions // days
        version = str(newest - refused(newest, versions))
        late = bool(drifts) and number > days * 0.9
        over = day < today
        asked = int(4000 + 900 * math.sin(number / 7 * 2 * math.pi) + chance.gauss(0, 150))
        bad, failed = int(asked * 0.012), chance.choice([0, 0, 1, 3])
        for name, count in (
            ("answered", asked - bad - failed),
            ("refused", bad),
            ("failed", failed),
            ("lost", 0),
        ):
            add(day, "requests", name, float(count), asked)
        add(day, "requests", "failed_share", failed / asked, asked, limit=0.01)
        add(day, "latency", "p50_ms", 2.1 + chance.random() * 0.4, asked)
        add(day, "latency", "p99_ms", 9 + chance.random() * 6, asked, limit=50.0)
        add(day, "availability", "probe", 1.0 if chance.random() < 0.97 else 0.996, 2880, limit=0.99)
        for each, name in enumerate(names):
            drifted = late and each < drifts
            psi = abs(chance.gauss(0.015, 0.012)) + (0.12 + 0.5 * (number / days - 0.9) * 10 if drifted else 0)
            note = (
                f"{name} drifted: PSI {psi:.2f} beside what version {version} was approved with"
                if drifted and over
                else ""
            )
            add(day, "drift", name, psi, asked, version=version, limit=0.1, alarm=drifted and over, note=note)
        add(day, "scores", "score", abs(chance.gauss(0.02, 0.01)), asked, version=version, limit=0.1)
        add(day, "unknown", hostile or "weather", chance.random() * 0.002, asked, version=version, limit=0.01)
        add(day, "stale", "restaurant_history", 0.01 + chance.random() * 0.02, asked, limit=0.05)
        add(day, "rejected", "all", bad / asked, asked, limit=0.05)
        add(day, "rejected", hostile or "wrong_type", bad * 0.7 / asked, asked)
        add(day, "rejected", "not_in_range", bad * 0.3 / asked, asked)
        if number >= days - 2:
            continue
        early = number >= days - 7
        share = 0.3 + 0.1 * (days - number) if early else 0.98
        add(
            day,
            "coverage",
            "outcomes",
            min(share, 1),
            asked,
            note="outcomes have their time until then" if early else "",
        )
        value = 0.812 + chance.gauss(0, 0.008) - (0.12 if late else 0)
        wrong = late and not early
        add(
            *(day, "quality", primary, value, int(asked * share)),
            version=version,
            lower=value - 0.018,
            upper=value + 0.018,
            limit=0.81 + 0.005 * int(version),
            alarm=wrong,
            note=f"{primary} of version {version} is {value:.3f}, worse than promised by more than 10%"
            if wrong
            else "outcomes have their time until then"
            if early
            else "",
        )
    kinds = dict.fromkeys(("value", "lower", "upper", "limit", "p_value"), pl.Float64)
    frame = pl.DataFrame(rows, schema_overrides=kinds, infer_schema_length=None)
    lake.replace(model, "monitoring", frame, sorted(set(frame.get_column(PARTITION))))
    _data(lake, model, first, days, chance, hostile)
    _rolled(lake, model, first, days, versions)


def refused(number: int, versions: int) -> bool:
    """Whether a version was not approved: of three or more the last but one."""
    return number > 2 and number == versions - 1


def _data(lake: Lake, model: str, first: date, days: int, chance: random.Random, hostile: str) -> None:
    records, rejected = [], []
    reasons = [
        (hostile or "distance_km", "in_range(0, 100)"),
        ("zone", "isin(['harbour', 'old town', 'north'])"),
        ("items", "is a Int64"),
    ]
    for number in range(days):
        day, bad = str(first + timedelta(days=number)), int(abs(chance.gauss(4, 5)))
        at = NOW - timedelta(days=days - number - 1, hours=5)
        for each in range(bad):
            column, check = reasons[min(each % 4, 2)]
            why = [{"column": column, "check": check, "value": "<b>x</b>"}]
            rejected.append({PARTITION: day, "_source": "a", "_row": each, "reasons": json.dumps(why), "row": "{}"})
        details = {"raw": 600 + bad, "rejected": bad, "duplicates": 0}
        records += [
            Record(asset, day, "i", "c", 600, "r", 0, details, at)
            for asset in ("raw_data", "cleaned_data", "features", "outcomes", "predictions", "feedback", "monitoring")
        ]
    append_records(lake, model, records)
    if rejected:
        frame = pl.DataFrame(rejected)
        lake.replace(model, "rejected_rows", frame, sorted(set(frame.get_column(PARTITION))))


def _rolled(lake: Lake, model: str, first: date, days: int, versions: int) -> None:
    """Each version is trained, judged and promoted before its first day; one more was refused."""
    journal, before = LakeJournal(lake, model), None
    for number in range(1, versions + 1):
        at = datetime.combine(first + timedelta(days=(number - 1) * days // versions), datetime.min.time(), UTC)
        at += timedelta(hours=3)
        why = "first training" if number == 1 else f"{number * 811:,} rows in new or changed days"
        note(lake, model, Decision("training", "asked for", why, ["trained_model", "metrics", "endpoint"], 0, at))
        held = f"{number * 811} rows in new or changed days; retrain.min_new_rows is 20,000"
        note(lake, model, Decision("training", "waits", held, [], 0, at + timedelta(hours=9)))
        version, no = str(number), refused(number, versions)
        judged = {
            "version": version,
            "approved": not no,
            "values": VALUES,
            "reasons": ["f1 0.7612, at least 0.8 is asked for"] if no else [],
        }
        append_records(
            lake,
            model,
            [
                Record(
                    "trained_model",
                    "all",
                    "i",
                    "c",
                    20_000 + 600 * number,
                    "r",
                    0,
                    {"version": version},
                    at + timedelta(minutes=2),
                ),
                Record("metrics", "all", "i", "c", 9, "r", 0, judged, at + timedelta(minutes=3)),
            ],
        )
        if no:
            continue
        release, started = Release.named(f"{version}-0123456789ab"), at + timedelta(minutes=4)
        for phase, hours, weight, reason in (
            (Phase.STAGING, 0, 0, "approved"),
            (Phase.BAKING, 1, 5, "nothing speaks against it"),
            (Phase.BAKING, 3, 25, "the errors are not worse"),
            (Phase.PROMOTED, 6, 100, "not worse than the champion in errors, latency and scores"),
        ):
            moment = started + timedelta(hours=hours)
            over = phase is Phase.PROMOTED
            now = Described(
                release.name if over else before.name if before else None,
                None if over else release.name,
                0 if over else weight,
            )
            journal.append(State(number, phase, release, before, reason, started, moment, moment, serves=now))
        before = release
    assert before is not None
    since = (NOW - timedelta(days=days // versions)).isoformat(timespec="seconds")
    said = {
        "release": before.name,
        "version": before.version,
        "since": since,
        "phase": "promoted",
        "challenger": None,
        "weight": 0,
        "waits": "",
    }
    append_records(lake, model, [Record("endpoint", "all", "i", "c", 1, "r", 0, said, NOW - timedelta(days=1))])
