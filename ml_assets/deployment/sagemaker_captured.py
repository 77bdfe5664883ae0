"""What SageMaker captured of an endpoint's requests and answers, as entries of a prediction log.

SageMaker writes objects `<prefix>/<endpoint>/<variant>/<yyyy>/<mm>/<dd>/<hh>/<file>.jsonl` of JSON lines (Developer
Guide, "Capture data from real-time endpoint"):

    {"captureData": {"endpointInput": {"observedContentType": ..., "mode": "INPUT", "data": ..., "encoding": "JSON"},
                     "endpointOutput": {...}},
     "eventMetadata": {"eventId": ..., "inferenceId": ..., "inferenceTime": ...}, "eventVersion": "0"}

They lack what our own log has: how long an answer took, what was looked up for it, and the requests that were not
sampled. None of that is made up.
"""

import base64
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from ml_assets.deployment.aws_requests import ask
from ml_assets.serving.journal import CLOSED, FRAME_ENTRIES, Entry, encode, frame

GOLDEN_ID = "ml-assets-golden"  # the InferenceId of requests of our own, which are no predictions
UNANSWERED = 424  # what SageMaker tells a caller whose request the container refused, whatever it said
LATE = timedelta(days=2)  # objects of an hour may come after those of a later one
LOOK_EVERY = 60.0  # seconds between two looks of who asks all the time

ReleaseOf = Callable[[str, datetime], str]  # by version and moment


@dataclass(frozen=True)
class Captured:
    """Where an endpoint's data is captured.

    Attributes:
        folders: of each variant, with a slash at the end.
    """

    s3: Any
    where: str
    bucket: str
    folders: tuple[str, ...]

    def objects(self, known: Mapping[str, str], *, certain: bool = True) -> dict[str, str]:
        """ETags by key of what is not known yet, or has another content than is known.

        Args:
            known: ETags by key.
            certain: look now; else a look of the last minute will do.

        Raises:
            TargetError: if S3 does not list them.
        """
        fresh: dict[str, str] = {}
        for folder in self.folders:
            latest = max((key for key in known if key.startswith(folder)), default="")
            listed = self._listed(folder, _day_of(folder, latest), certain)
            fresh |= {key: etag for key, etag in listed.items() if known.get(key) != etag}
        return fresh

    def _listed(self, folder: str, since: datetime | None, certain: bool) -> dict[str, str]:
        place = (self.bucket, folder)
        at, listed = _looks.get(place, (-math.inf, {}))
        if certain or time.monotonic() > at + LOOK_EVERY:
            listed = dict(self._list(folder, since))
            _looks[place] = time.monotonic(), listed
        return listed

    def _list(self, folder: str, since: datetime | None) -> list[tuple[str, str]]:
        after: dict[str, Any] = {} if since is None else {"StartAfter": f"{folder}{since - LATE:%Y/%m/%d}"}
        token: dict[str, Any] = {}
        found: list[tuple[str, str]] = []
        while True:
            page = ask(self.s3, self.where, "ListObjectsV2", Bucket=self.bucket, Prefix=folder, **after, **token)
            there = {each["Key"]: each["ETag"] for each in page.get("Contents", [])}
            found += [(key, etag) for key, etag in there.items() if key.endswith(".jsonl") and _day_of(folder, key)]
            if not page.get("IsTruncated"):
                return found
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def take_in(self, key: str, journal: Path, release_of: ReleaseOf) -> list[str]:
        """Put an object's records into a model's journal, as a closed segment for each day (UTC) that they are of.

        The same object gives the same segments, so this may be done again.

        Returns:
            The days.

        Raises:
            TargetError: if S3 does not give it.
        """
        content = ask(self.s3, self.where, "GetObject", Bucket=self.bucket, Key=key)["Body"].read()
        days: dict[str, list[Entry]] = {}
        lines = [line for line in content.splitlines() if line.strip()]
        unreadable = 0
        for number, line in enumerate(lines):
            try:
                entry = entry_of(line, release_of, f"{key}#{number}")
            except (ValueError, KeyError, TypeError, AttributeError):
                unreadable += 1
                continue
            if entry is not None:
                day = datetime.fromtimestamp(entry.at / 1e6, UTC).strftime("%Y-%m-%d")
                days.setdefault(day, []).append(entry)
        if unreadable:
            days.setdefault("-".join(key.split("/")[-5:-2]), [])
        for day, entries in days.items():
            lost = unreadable if day == max(days) else 0  # on which day they were, nobody can say
            _write(journal, day, hashlib.blake2b(key.encode(), digest_size=8).digest(), entries, lost)
        return sorted(days)


_looks: dict[tuple[str, str], tuple[float, dict[str, str]]] = {}


def _day_of(folder: str, key: str) -> datetime | None:
    """The day in an object's key; None where there is none."""
    try:
        return datetime.strptime(key.removeprefix(folder)[:10], "%Y/%m/%d").replace(tzinfo=UTC)
    except ValueError:
        return None


def entry_of(line: bytes, release_of: ReleaseOf, name: str) -> Entry | None:
    """A captured request as an entry; None for one of our own.

    Args:
        name: the id of a request that has none.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: if it is not what SageMaker writes.
    """
    record = json.loads(line)
    about, data = record["eventMetadata"], record["captureData"]
    given = about.get("inferenceId")
    if given == GOLDEN_ID:
        return None
    when = datetime.fromisoformat(about["inferenceTime"].replace("Z", "+00:00"))
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    at, event = round(when.timestamp() * 1e6), str(about.get("eventId") or name)
    answer = _answer(data.get("endpointOutput"))
    if answer is None or "endpointInput" not in data:
        return Entry(at, event, UNANSWERED, "", "", math.nan, reason="captured without an answer")
    version = str(answer["version"])
    asked = data["endpointInput"]
    form = (
        "csv"
        if "csv" in str(asked.get("observedContentType", "")).lower() or asked.get("encoding") == "CSV"
        else "json"
    )
    body = msgspec.json.encode(answer)
    return Entry(at, event, 200, version, release_of(version, when), math.nan, form, _data(asked), body, given)


def _answer(output: Any) -> dict[str, Any] | None:
    """What the server answered; None if that is no answer of predictions, such as an error."""
    if not isinstance(output, dict):
        return None
    try:
        answer = json.loads(_data(output))
    except ValueError:
        return None
    return answer if isinstance(answer, dict) and "predictions" in answer and "version" in answer else None


def _data(part: Mapping[str, Any]) -> bytes:
    text = str(part["data"])
    return base64.b64decode(text, validate=True) if part.get("encoding") == "BASE64" else text.encode()


def _write(journal: Path, day: str, mark: bytes, entries: list[Entry], lost: int) -> None:
    """A closed segment, in the place of one that was made of the same object."""
    journal.mkdir(parents=True, exist_ok=True, mode=0o700)
    encoded = [encode(each) for each in entries]
    content = b"".join(
        frame(mark, start, encoded[start : start + FRAME_ENTRIES]) for start in range(0, len(encoded), FRAME_ENTRIES)
    )
    name = f"{day}-000000-{mark.hex()}"
    draft = journal / f".{name}"
    draft.write_bytes(content)
    for each in journal.glob(f"{name}.*{CLOSED}"):
        each.unlink()
    draft.rename(journal / f"{name}.{len(entries) + lost}{CLOSED}")
