"""From the entries of the prediction log to rows: what was asked, what the model saw of it, and what it said."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pandera.polars as pa
import polars as pl

from ml_assets.contract import Contract
from ml_assets.errors import MlAssetsError, ReleaseError
from ml_assets.ml.features import Features
from ml_assets.ml.parsing import parse_column
from ml_assets.serving.bodies import Sent, rows_of_csv, rows_of_json
from ml_assets.serving.frames import frame_of, polars_type
from ml_assets.serving.journal import Entry
from ml_assets.serving.options import Options
from ml_assets.serving.reasons import restored
from ml_assets.serving.scorer import Scorer, require_equal
from ml_assets.spec.base import Task

KEY, REQUEST, FEATURE = "key_", "request_", "feature_"  # before names that the model's folder gives
FEATURES_DIGEST = "features_digest"  # of the expressions that made a row's features
TIME = pl.Datetime("us", "UTC")
_NO_LIMITS = Options(max_bytes=2**62, max_rows=2**62)  # those of the server that took the request are not known here

ASKED: dict[str, pl.DataType] = {
    "request_id": pl.String(),
    "row": pl.Int64(),
    "received_at": TIME,
    "version": pl.String(),
    "release": pl.String(),
    "seconds": pl.Float64(),
    "segment": pl.String(),
}
REFUSED: dict[str, pl.DataType] = {
    "request_id": pl.String(),
    "received_at": TIME,
    "version": pl.String(),
    "release": pl.String(),
    "status": pl.Int64(),
    "reason": pl.String(),
    "column": pl.String(),
    "seconds": pl.Float64(),
    "segment": pl.String(),
}


def answer_types(task: Task) -> dict[str, pl.DataType]:
    """Columns of an answer; `score` is of the last of two classes, or of the label, with those of all in `scores`."""
    if task == "regression":
        return {"value": pl.Float64()}
    more = {"scores": pl.String()} if task == "multiclass" else {}
    return {"label": pl.String(), "score": pl.Float64(), **more}


def predictions_schema(contract: Contract, key: Sequence[str], features: Features, task: Task) -> pa.DataFrameSchema:
    """What a row of the table holds. A release that makes other features has columns beside these."""
    probability = pa.Check.in_range(0, 1)
    finite = pa.Check(lambda data: data.lazyframe.select(pl.col(data.key).is_finite()), name="finite", error="finite")
    checks: dict[str, Any] = {"row": pa.Check.ge(0), "seconds": pa.Check.ge(0), "score": probability}
    columns = {
        # What SageMaker captured does not say how long it took.
        name: pa.Column(kind, checks.get(name), nullable=name == "seconds")
        for name, kind in (ASKED | answer_types(task)).items()
    }
    columns[FEATURES_DIGEST] = pa.Column(pl.String, nullable=True, description="Of the expressions of its features")
    columns["missing"] = pa.Column(pl.String, nullable=True, description="Side tables and groups that had nothing")
    for name in key:
        columns[KEY + name] = pa.Column(
            contract.types.get(name, pl.String()), nullable=True, description="By which its outcome is found"
        )
    for name in features.inputs:
        if name in contract.types:
            columns[REQUEST + name] = pa.Column(contract.types[name], nullable=True)
    for name, kind in features.types.items():
        columns[FEATURE + name] = pa.Column(kind, [finite] if kind == pl.Float64 else None, nullable=True)
    return pa.DataFrameSchema(columns, description="What the endpoint was asked, and what it answered.")


@dataclass
class Logged:
    """What a segment's entries became.

    Attributes:
        rows: one per predicted row.
        refused: one per request that was not answered; no value of it was kept.
        counts: requests by status, and what could not be had.
        versions: of each version that answered its classes.
    """

    rows: pl.DataFrame
    refused: pl.DataFrame
    counts: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    versions: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Asked:
    """One entry, read."""

    entry: Entry
    sent: Sent
    answers: list[dict[str, Any]]


def rows_of_entries(
    entries: Iterable[Entry],
    segment: str,
    load: Callable[[str], Scorer],
    schema: pa.DataFrameSchema,
    key: Mapping[str, pl.DataType],
    task: Task,
) -> Logged:
    """Rows of a segment.

    A request becomes what it was when it was answered: its columns by the contract of the release that answered, its
    features by that release's expressions from these and from what had been looked up, to the last bit. The release is
    asked again, and answers that differ are counted.

    Args:
        load: the release of a name; raises ReleaseError if it is not to be had any more.
        schema: whose columns the rows have at least, null where the release has no such thing.
        key: columns by which outcomes are joined, with their types.
    """
    statuses: Counter[str] = Counter()
    counts: Counter[str] = Counter(without_features=0, unreadable=0, not_reproduced=0)
    refused: list[dict[str, Any]] = []
    by_release: dict[str, list[Entry]] = {}
    for each in entries:
        statuses[str(each.status)] += 1
        if each.status == 200:
            by_release.setdefault(each.release, []).append(each)
        else:
            refused.append(_refusal(each, segment))
    frames, versions = [], {}
    for release, some in by_release.items():
        try:
            scorer: Scorer | None = load(release)
        except (ReleaseError, OSError):
            scorer = None
        asked = list(filter(None, (_read(each, scorer) for each in some)))
        counts["unreadable"] += len(some) - len(asked)
        if scorer is not None and asked:
            versions[scorer.manifest.version] = scorer.manifest.classes
        # Where it is not known what was looked up, it is not known either what the model saw.
        looks_up = scorer is not None and bool(scorer.manifest.beside)
        unknown = [scorer is None or (looks_up and each.entry.looked_up is None) for each in asked]
        if blind := [each for each, lacks in zip(asked, unknown, strict=True) if lacks]:
            counts["without_features"] += sum(len(each.answers) for each in blind)
            frames.append(pl.concat(_said(blind, segment, task, key), how="horizontal"))
        sound = [each for each, lacks in zip(asked, unknown, strict=True) if not lacks]
        if scorer is not None and sound:
            seen, frame = _seen(sound, scorer)
            counts["not_reproduced"] += _not_reproduced(sound, scorer, frame)
            frames.append(pl.concat([*_said(sound, segment, task, key), seen], how="horizontal"))
    known = {name: column.dtype.type for name, column in schema.columns.items()}
    nothing = pl.DataFrame(schema=known)
    table = together([nothing, *frames])
    counts["not_joinable"] = table.filter(pl.any_horizontal(pl.col(KEY + name).is_null() for name in key)).height
    return Logged(table, pl.DataFrame(refused, schema=REFUSED), dict(counts), dict(statuses), versions)


def together(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Rows of several tables, null where one has no such column; as text where they do not agree on its type."""
    kinds: dict[str, pl.DataType] = {}
    for frame in frames:
        for name, kind in frame.schema.items():
            if kinds.setdefault(name, kind) != kind:
                kinds[name] = pl.String()
    return pl.concat([frame.cast({name: kinds[name] for name in frame.columns}) for frame in frames], how="diagonal")


def _refusal(entry: Entry, segment: str) -> dict[str, Any]:
    said = {name: getattr(entry, name) for name in ("version", "release", "status", "reason", "column")}
    said["seconds"] = _measured(entry)
    return {"request_id": entry.id, "received_at": _moment(entry.at), "segment": segment} | said


def _measured(entry: Entry) -> float | None:
    """How long it took; None where nobody measured it."""
    return None if math.isnan(entry.seconds) else entry.seconds


def _moment(at: int) -> Any:
    return pl.Series([at], dtype=pl.Int64).cast(TIME)[0]


def _read(entry: Entry, scorer: Scorer | None) -> _Asked | None:
    """An entry's rows and answers; None if they cannot be read, which is counted."""
    try:
        if entry.form == "json":
            sent = rows_of_json(entry.body, _NO_LIMITS)
        elif scorer is not None:
            sent = Sent(rows_of_csv(entry.body, scorer.manifest.inputs, _NO_LIMITS))
        else:
            return None  # without the release nobody knows the columns
        answers = msgspec.json.decode(entry.answer)["predictions"]
    except (MlAssetsError, msgspec.DecodeError):
        return None
    return _Asked(entry, sent, answers) if len(answers) == len(sent.rows) else None


def _said(
    asked: Sequence[_Asked], segment: str, task: Task, key: Mapping[str, pl.DataType]
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """What is known of requests without their release."""
    return _asked(asked, segment), _answers(asked, task), _keys(asked, key)


def _asked(asked: Sequence[_Asked], segment: str) -> pl.DataFrame:
    entries = [each.entry for each in asked for _ in each.answers]
    said: dict[str, Any] = {
        "request_id": [each.id for each in entries],
        "row": [number for each in asked for number in range(len(each.answers))],
        "received_at": pl.Series([each.at for each in entries], dtype=pl.Int64).cast(TIME),
        "version": [each.version for each in entries],
        "release": [each.release for each in entries],
        "seconds": [_measured(each) for each in entries],
        "segment": [segment] * len(entries),
    }
    return pl.DataFrame(said, schema=ASKED)


def _answers(asked: Sequence[_Asked], task: Task) -> pl.DataFrame:
    answers = [answer for each in asked for answer in each.answers]
    said: dict[str, list[Any]] = {"missing": [_text(each.get("missing")) for each in answers]}
    if task == "regression":
        said["value"] = [each.get("value") for each in answers]
    else:
        said["label"] = [None if (label := each.get("label")) is None else str(label) for each in answers]
        said["score"] = [
            each["scores"][str(each["label"])] if "scores" in each else each.get("score") for each in answers
        ]
    if task == "multiclass":
        said["scores"] = [_text(each.get("scores")) for each in answers]
    return pl.DataFrame(said, schema={"missing": pl.String(), **answer_types(task)})


def _text(value: Any) -> str | None:
    return None if value is None else json.dumps(value, separators=(",", ":"))


def _keys(asked: Sequence[_Asked], key: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """By what the outcome of each row is found, as far as it can be."""
    rows: list[Mapping[str, str]] = []
    for each in asked:
        ids = each.sent.ids or ([each.entry.given] if len(each.sent.rows) == 1 else [None] * len(each.sent.rows))
        rows += [key_of(given, row, list(key)) for given, row in zip(ids, each.sent.rows, strict=True)]
    texts = [pl.Series(KEY + name, [row.get(name) for row in rows], dtype=pl.String) for name in key]
    parsed = [parse_column(text, kind) for text, kind in zip(texts, key.values(), strict=True)]
    return pl.DataFrame(parsed)


def key_of(given: Any, row: Mapping[str, Any], key: Sequence[str]) -> dict[str, str]:
    """Columns of the key as texts, as far as they are known.

    An object says its columns by name. A bare value is that of the one column of the key that the row does not have,
    or of the only one. What the id does not say is taken from the row.

    >>> key_of("a1", {}, ["order"]), key_of({"line": 2}, {"order": "a1"}, ["order", "line"])
    ({'order': 'a1'}, {'order': 'a1', 'line': '2'})
    """
    values = {name: row.get(name) for name in key}
    if isinstance(given, dict):
        values |= {name: value for name, value in given.items() if name in values}
    elif given is not None:
        absent = list(key) if len(key) == 1 else [name for name, value in values.items() if value is None]
        values |= {absent[0]: given} if len(absent) == 1 else {}
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in values.items()
        if value is not None
    }


def _seen(asked: Sequence[_Asked], scorer: Scorer) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The columns of the requests as they were validated, and the features made of them; and what features read."""
    manifest = scorer.manifest
    frame = frame_of([row for each in asked for row in each.sent.rows], manifest.inputs, manifest.null_values)
    columns = [frame.select(pl.all().name.prefix(REQUEST))]
    if beside := {column.name: polars_type(column) for column in manifest.beside}:
        looked_up: list[list[Any]] = [[] for _ in beside]
        for each in asked:
            for values, more in zip(looked_up, each.entry.looked_up or [], strict=True):
                values.extend(more)
        frame = frame.hstack(restored(looked_up, beside))
    features = scorer.features.compute(frame)
    columns.append(features.select(pl.all().name.prefix(FEATURE)))
    columns.append(
        pl.DataFrame({FEATURES_DIGEST: [scorer.features.digest] * frame.height}, schema={FEATURES_DIGEST: pl.String})
    )
    return pl.concat(columns, how="horizontal"), features


def _not_reproduced(asked: Sequence[_Asked], scorer: Scorer, features: pl.DataFrame) -> int:
    """Requests to whose features the release gives another answer now."""
    again = iter(scorer.answers_of(features))
    differ = 0
    for each in asked:
        said = [{name: value for name, value in answer.items() if name != "missing"} for answer in each.answers]
        try:
            require_equal(said, [next(again) for _ in said], each.entry.id)
        except ReleaseError:
            differ += 1
    return differ
