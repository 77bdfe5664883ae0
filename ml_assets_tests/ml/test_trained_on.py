from dataclasses import replace
from datetime import UTC, datetime

import polars as pl
import pytest

from ml_assets.ml.trained_on import TrainedOn, digest_of_files, hashes_of

ROWS = pl.DataFrame(
    {"order": [1, 2, 3], "at": [datetime(2025, 1, day, tzinfo=UTC) for day in (1, 2, 3)], "x": [0.1, None, 0.3]}
)
KEPT = TrainedOn.of(ROWS, ["order", "at"], "late", "binary", [False, True], {"km": "a", "zone": "b"})


def test_a_row_is_known_again_by_its_key_in_any_order_zone_and_unit() -> None:
    other = pl.DataFrame({"order": [4, 3], "at": [datetime(2025, 1, 3, tzinfo=UTC)] * 2}).with_columns(
        pl.col("at").dt.convert_time_zone("Asia/Tokyo").dt.cast_time_unit("ms")
    )
    assert KEPT.has_seen(other).tolist() == [False, True]
    assert KEPT.has_seen(ROWS.reverse()).all()


def test_hashes_are_the_same_for_ever() -> None:
    """They lie in the registry; others would say of every row that it was never trained on."""
    assert hashes_of(ROWS, ["order", "at"]).tolist() == [
        16022453090956555585,
        16239402116571059341,
        14697644981697915972,
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [(("a", "bc"), ("ab", "c")), ((None, "a"), ("", "a")), (("=", ""), ("", "=")), ((None, None), ("", ""))],
)
def test_different_keys_are_not_taken_for_each_other(
    one: tuple[str | None, ...], other: tuple[str | None, ...]
) -> None:
    rows = pl.DataFrame([one, other], schema=["a", "b"], orient="row")
    first, second = hashes_of(rows, ["a", "b"])
    assert first != second


def test_it_comes_back_from_its_files_and_any_change_changes_its_digest() -> None:
    back = TrainedOn.from_files(KEPT.files)
    assert back.files == KEPT.files
    assert back.digest == KEPT.digest == digest_of_files(KEPT.files)
    changed = (replace(KEPT, hashes=KEPT.hashes[1:]), replace(KEPT, features={"km": "a"}), replace(KEPT, key=["order"]))
    assert len({KEPT.digest, *(each.digest for each in changed)}) == 4
    assert len(KEPT.files["trained_on.npy"]) == 128 + 3 * 8, "eight bytes a row"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"features": {"km": "a", "zone": "b", "more": "c"}}, None),
        ({"features": {"zone": "b"}}, "it needs feature km, which is no longer made"),
        ({"features": {}}, "it needs features km, zone, which are no longer made"),
        ({"features": {"km": "x", "zone": "b"}}, "feature km is made in another way than it was trained with"),
        ({"key": ["order"]}, "its key is ['order', 'at'], and now it is ['order']"),
        ({"target": "very_late"}, "its target is late"),
        ({"classes": [0, 1, 2]}, "its classes is [False, True], and now it is [0, 1, 2]"),
    ],
)
def test_it_says_why_rows_of_now_cannot_be_scored_with_it(change: dict[str, object], said: str | None) -> None:
    found = KEPT.obstacle(replace(KEPT, **change))  # type: ignore[arg-type]
    assert found == said if said is None else said in str(found)
