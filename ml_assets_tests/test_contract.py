from typing import Annotated, Any

import pandera.polars as pa
import polars as pl
import pytest

from ml_assets.contract import Contract
from ml_assets.errors import ModelDefinitionError
from ml_assets.ml.purity import Possible


def contract(**fields: Any) -> Contract:
    """A contract with an amount whose field is made from `fields`."""
    options: dict[str, Any] = {"gt": 0, "nullable": True, "metadata": {"role": "request"}} | fields
    annotation = options.pop("type", float)

    class Rows(pa.DataFrameModel):
        amount: annotation = pa.Field(**options)  # type: ignore[valid-type]
        late: bool = pa.Field(metadata={"role": "target"})

    return Contract.read(Rows, "demo: contract.py")


def test_the_digest_follows_what_rows_may_be_and_not_how_it_is_described() -> None:
    same = contract().digest
    assert contract(description="In euro").digest == same
    changed = [
        contract(type=int).digest,
        contract(gt=1).digest,
        contract(ge=0).digest,
        contract(nullable=False).digest,
        contract(metadata={"role": "entity"}).digest,
    ]
    assert len({same, *changed}) == len(changed) + 1


def test_the_digest_follows_the_code_of_a_check_of_ones_own() -> None:
    class One(pa.DataFrameModel):
        late: bool = pa.Field(metadata={"role": "target"})

        @pa.check("late")
        def check(cls, data: pa.PolarsData) -> pl.LazyFrame:
            return data.lazyframe.select(pl.col("late"))

    class Other(pa.DataFrameModel):
        late: bool = pa.Field(metadata={"role": "target"})

        @pa.check("late")
        def check(cls, data: pa.PolarsData) -> pl.LazyFrame:
            return data.lazyframe.select(pl.col("late").not_())

    assert Contract.read(One, "m").digest != Contract.read(Other, "m").digest


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (None, "role None"),
        ({"role": "feature"}, "role 'feature'"),
        ({"role": ["request", "outcome"]}, "both known at the request and afterwards"),
        ({"role": "target"}, "2 columns have the role target"),
        ({"role": "event_time"}, "event time 'amount' is a Float64"),
    ],
)
def test_a_role_that_makes_no_sense_is_refused_with_its_column(metadata: Any, said: str) -> None:
    with pytest.raises(ModelDefinitionError, match=said) as caught:
        contract(metadata=metadata)
    assert "demo: contract.py" in str(caught.value)


@pytest.mark.parametrize("kind", [("us", "Europe/Berlin"), ("ms", "UTC"), ("ns", None)])
def test_a_time_that_a_table_would_give_back_otherwise_is_refused(kind: tuple[str, str | None]) -> None:
    with pytest.raises(ModelDefinitionError, match="column 'amount' is a Datetime"):
        contract(type=Annotated[pl.Datetime, *kind], gt=None)
    contract(type=Annotated[pl.Datetime, "us", "UTC"], gt=None)
    contract(type=Annotated[pl.Datetime, "us", None], gt=None)


@pytest.mark.parametrize("kind", [pl.Decimal, pl.Categorical, pl.Time, pl.Duration, pl.Binary])
def test_a_type_that_no_request_can_carry_is_refused(kind: type[pl.DataType]) -> None:
    with pytest.raises(ModelDefinitionError, match=r"column 'amount' is a .*, which no request can carry; declare it"):
        contract(type=kind, gt=None)
    contract(type=kind, gt=None, metadata={"role": "outcome"})


def test_a_contract_without_a_target_is_refused() -> None:
    class Rows(pa.DataFrameModel):
        amount: float = pa.Field(metadata={"role": "request"})

    with pytest.raises(ModelDefinitionError, match="no column has the role target"):
        Contract.read(Rows, "demo")


@pytest.mark.parametrize(
    ("fields", "possible"),
    [
        ({}, Possible(above=0)),
        ({"gt": None, "ge": 1, "lt": 9}, Possible(least=1, below=9)),
        ({"gt": None, "le": 9}, Possible(most=9)),
        ({"gt": None, "isin": [1.0, 2.0]}, Possible(allowed=(1.0, 2.0))),
        ({"gt": None, "eq": 3}, Possible(allowed=(3,))),
        ({"gt": None, "in_range": {"min_value": 1, "max_value": 2, "include_max": False}}, Possible(least=1, below=2)),
        ({"gt": None}, Possible()),
    ],
)
def test_the_limits_of_a_column_are_read_from_its_checks(fields: dict[str, Any], possible: Possible) -> None:
    assert contract(**fields).possible["amount"] == possible
