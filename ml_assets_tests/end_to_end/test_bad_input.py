"""Bad input at the source of a model that serves: one clear message, and earlier data and the endpoint untouched."""

from collections.abc import Callable, Iterator

import numpy as np
import polars as pl
import pytest

from ml_assets.errors import MlAssetsError
from ml_assets.lake import WHOLE
from ml_assets_tests.project import Project
from ml_assets_tests.s3 import S3, s3_server

CONTRACT = """
import pandera.polars as pa


class Rows(pa.DataFrameModel):
    size: float = pa.Field(gt=0, metadata={"role": "request"})
    price: float = pa.Field(metadata={"role": "target"})
"""


def csv(rows: int = 300) -> pl.DataFrame:
    random = np.random.default_rng(1)
    size = random.gamma(3.0, 20.0, rows)
    return pl.DataFrame({"size": size, "price": 3 * size + random.normal(0, 5, rows)})


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with s3_server() as s3:
        yield s3


@pytest.fixture(scope="module")
def shop(make_project: Callable[..., Project], server: S3) -> Project:
    """A model that was trained on a CSV object in S3 and serves."""
    project = make_project("bad_input", landing="s3://landing")
    project.variables |= server.variables() | {"ML_ASSETS_S3_ENDPOINT_URL": server.url}
    spec = {
        "task": "regression",
        "contract": "contract.Rows",
        "source": {"kind": "files", "uri": "{{ landing }}/shop.csv"},
        "training": {"min_rows": 100, "folds": 2},
        "gates": {"min_rows": 10},
        "estimator": {"params": {"n_estimators": 5}},
    }
    project.add_model("shop", spec, CONTRACT)
    server.create_bucket("landing")
    server.put("landing", "shop.csv", csv().write_csv().encode())
    project.materialize("shop")
    return project


def wrong_secret(shop: Project, server: S3) -> None:
    shop.variables["AWS_SECRET_ACCESS_KEY"] = "wrong"


def no_bucket(shop: Project, server: S3) -> None:
    server.empty_and_delete("landing")


def missing_column(shop: Project, server: S3) -> None:
    server.put("landing", "shop.csv", csv().drop("size").write_csv().encode())


def empty_object(shop: Project, server: S3) -> None:
    server.put("landing", "shop.csv", b"")


def damaged_object(shop: Project, server: S3) -> None:
    server.put("landing", "shop.csv", b"size,price\n1,2,3,4\n")


def only_a_header(shop: Project, server: S3) -> None:
    server.put("landing", "shop.csv", b"size,price\n")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (wrong_secret, r"shop: source: s3://landing: .*the credentials are refused"),
        (missing_column, r"shop: source: s3://landing/shop.csv lacks the column 'size' of the contract; it has price"),
        (empty_object, r"shop: source: s3://landing/shop.csv is empty"),
        (damaged_object, r"shop: source: s3://landing/shop.csv cannot be read as csv"),
        (only_a_header, r"shop: source: s3://landing/shop.csv is empty: it holds no rows"),
        (no_bucket, r"shop: source: s3://landing: NoSuchBucket"),
    ],
)
def test_one_clear_message_and_nothing_is_touched(
    shop: Project, server: S3, spoil: Callable[[Project, S3], None], said: str
) -> None:
    before = shop.contents("shop")
    spoil(shop, server)
    with pytest.raises((MlAssetsError, Exception), match=said):
        shop.materialize("shop")
    assert shop.contents("shop") == before
    health = shop.target.health()
    assert health is not None
    assert health["models"]["shop"]["version"] == "1"
    shop.variables |= server.variables()
    if spoil is no_bucket:
        server.create_bucket("landing")
    server.put("landing", "shop.csv", csv().write_csv().encode())
    shop.materialize("shop")
    assert shop.contents("shop") == before
    endpoint = shop.latest("shop").get("endpoint", WHOLE)
    assert endpoint is not None
    assert endpoint.details["version"] == "1"
