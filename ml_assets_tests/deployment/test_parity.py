"""Parity compares features bit by bit."""

import polars as pl
import pytest

from ml_assets.deployment.parity import _features


@pytest.mark.parametrize("kind", [pl.Float32(), pl.Float64()])
def test_a_zero_is_not_a_negative_zero(kind: pl.DataType) -> None:
    offline, served = (pl.DataFrame({"slope": [1.0, zero]}, schema={"slope": kind}) for zero in (0.0, -0.0))
    [found] = _features(served, offline)
    assert (found.feature, found.row) == ("slope", 1)
    assert list(_features(offline, offline)) == []
