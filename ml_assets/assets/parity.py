"""The check `parity` of each release: rows of the past asked again, as of then, through the serving path.

For three cut-offs a temporary online store is filled as `online_features` fills the real one, but as of the cut-off,
and the rows right after it are asked as a caller asks them. A release that gives another feature or score is refused.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from ml_assets.assets.naming import key_of
from ml_assets.assets.online_features import holdings_of
from ml_assets.deployment.parity import Difference, differences
from ml_assets.deployment.release import as_request
from ml_assets.feature_store.online import Holding, bring_up_to_date
from ml_assets.feature_store.types import stored_type
from ml_assets.lake import WHOLE, Lake
from ml_assets.ml.joins import moment
from ml_assets.model import Model
from ml_assets.records import Latest
from ml_assets.serving.online import OnlineStore, open_online, sqlite_path
from ml_assets.serving.scorer import Scorer

CHECK = "parity"
CUT_OFFS, MOST_ROWS = 3, 200
APART = 7  # days between two cut-offs, where there are days enough


Fill = Callable[[Model, Lake, Mapping[str, Holding], str], OnlineStore]


@dataclass
class Parity:
    """What the replay showed.

    Attributes:
        rows: number of rows replayed by day.
        looked_up: by day for each side table and group how many rows found their entity, and how many did not, and why.
        found: every difference, with the cut-off and the key of the row.
    """

    rows: dict[str, int] = field(default_factory=dict)
    looked_up: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    found: list[tuple[str, str, Difference]] = field(default_factory=list)

    @property
    def reason(self) -> str:
        """What differs first, for people."""
        at, key, difference = self.found[0]
        others = sorted({each.feature for _, _, each in self.found} - {difference.feature})
        more = f"; {', '.join(others)} differ too" if others else ""
        return f"{difference} (cut-off {at}, row {key}){more}"


def parity_spec(model: Model) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        CHECK,
        asset=key_of(model, "endpoint"),
        blocking=True,
        description="Rows of the past, asked again as of then: features to the last bit, scores to 1e-6.",
    )


def parity_result(model: Model, parity: Parity) -> dg.AssetCheckResult:
    metadata: dict[str, dg.MetadataValue] = {
        "rows": dg.MetadataValue.json(parity.rows),
        "looked_up": dg.MetadataValue.json(parity.looked_up),
    }
    if parity.found:
        told = [asdict(found) | {"cut_off": at, "row": key} for at, key, found in parity.found[:100]]
        records = [dg.TableRecord({name: str(value) for name, value in each.items()}) for each in told]
        metadata["differences"] = dg.MetadataValue.table(records)
    return dg.AssetCheckResult(
        passed=not parity.found,
        asset_key=key_of(model, "endpoint"),
        check_name=CHECK,
        description=parity.reason if parity.found else f"{sum(parity.rows.values())} rows agree",
        metadata=metadata,
    )


def filled(model: Model, lake: Lake, holdings: Mapping[str, Holding], folder: str) -> OnlineStore:
    """A temporary online store that holds this."""
    from ml_assets.feature_store.repository import apply, write_repository

    repository = Path(folder) / model.name
    write_repository(repository, model, lake, sqlite_path(folder, model.name))
    online = open_online(folder, model.name)
    bring_up_to_date(apply(repository), online, holdings, {})
    return online


def replay(model: Model, lake: Lake, latest: Latest, release: Path, pipeline: Any, fill: Fill = filled) -> Parity:
    """Ask a release for rows of the past and compare with what training saw.

    Args:
        pipeline: the fitted Pipeline of the approved version, from the registry.
        fill: makes the temporary online stores.
    """
    parity = Parity()
    for day in cut_off_days(latest):
        cleaned = lake.read(model.name, "cleaned_data", [day])
        rows, cut_off = _right_after(model, lake, latest, cleaned)
        rows = rows.sort(*([model.contract.event_time] if model.contract.event_time else []), *model.contract.key)
        rows = rows.head(MOST_ROWS)
        with tempfile.TemporaryDirectory() as folder:
            holdings = _of_rows(holdings_of(model, lake, latest, cut_off), rows)
            scorer = Scorer.load(release, fill(model, lake, holdings, folder) if holdings else None)
            asked = as_request(rows, scorer.manifest)
            scorer.read(asked)
            parity.rows[day], parity.looked_up[day] = rows.height, scorer.counts
            offline = _offline(model, lake, day, rows)
            found = differences(scorer, asked, pipeline, offline, model.inputs)
        keys = rows.select(model.contract.key).rows()
        parity.found += [(cut_off.isoformat(), ", ".join(map(str, keys[each.row])), each) for each in found]
    return parity


def cut_off_days(latest: Latest) -> list[str]:
    """The newest partition that has features, and two before it, a week apart where there are days enough."""
    there = [each for each, record in latest.of("features").items() if record.rows]
    if not there or WHOLE in there:
        return there
    apart = max(1, min(APART, (len(there) - 1) // (CUT_OFFS - 1)))
    return there[::-apart][:CUT_OFFS]


def _right_after(model: Model, lake: Lake, latest: Latest, cleaned: pl.DataFrame) -> tuple[pl.DataFrame, datetime]:
    """The latest cut-off before the middle row of a day, and its rows until the next value becomes available."""
    time = model.contract.event_time
    if time is None:
        return cleaned, datetime.now(UTC)
    at = cleaned.select(moment(pl.col(time)).dt.replace_time_zone("UTC")).to_series()
    middle: datetime = at.sort()[at.len() // 2]
    holdings = holdings_of(model, lake, latest, middle)
    cut_off = max((each.newest for each in holdings.values() if each.newest), default=middle)
    until = min((each.next for each in holdings.values() if each.next), default=None)
    return cleaned.filter((at >= cut_off) & ((at < until) if until else pl.lit(True))), cut_off


def _of_rows(holdings: Mapping[str, Holding], rows: pl.DataFrame) -> dict[str, Holding]:
    """Of what an online store is to hold what concerns some rows: a million others would take minutes to write."""
    some = {}
    for name, each in holdings.items():
        kinds = {theirs: stored_type(each.join.types[theirs]) for theirs in each.key}
        keys = rows.select(pl.col(own).cast(kinds[theirs]).alias(theirs) for own, theirs in each.join.by.items())
        kept = each.rows.join(keys.unique(), on=each.key, how="semi", maintain_order="left") if each.key else each.rows
        some[name] = replace(each, rows=kept)
    return some


def _offline(model: Model, lake: Lake, day: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Features of some rows as they lie in the lake."""
    features = lake.read(model.name, "features", [day])
    key = model.contract.key
    return rows.select(key).join(features, on=key, how="left", maintain_order="left").select(model.features.names)
