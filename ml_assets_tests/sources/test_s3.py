import io
from collections.abc import Iterator

import polars as pl
import pytest

from ml_assets.access import Access
from ml_assets.errors import SourceError
from ml_assets.sources import Source, open_source
from ml_assets.spec import FilesSource
from ml_assets_tests.s3 import S3, s3_server

FRAME = pl.DataFrame({"id": [1, 2]})


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with s3_server() as s3:
        s3.create_bucket("landing")
        content = io.BytesIO()
        FRAME.write_parquet(content)
        for name in ("orders/1.parquet", "orders/2.parquet", "other/3.parquet"):
            s3.put("landing", name, content.getvalue())
        yield s3


@pytest.fixture(autouse=True)
def _credentials(server: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.variables().items():
        monkeypatch.setenv(name, value)


def orders(server: S3, bucket: str = "landing") -> Source:
    return open_source(
        FilesSource(kind="files", uri=f"s3://{bucket}/orders/*.parquet"), "demo: source", Access(server.url)
    )


def test_objects_below_the_prefix_are_batches_and_are_read(server: S3) -> None:
    found = orders(server)
    assert [each.id for each in found.batches()] == ["1.parquet", "2.parquet"]
    assert found.read(found.batches()[0]).equals(FRAME)


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_one_clear_message_without_the_secret(
    server: S3, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "not-the-right-one")
    with pytest.raises(SourceError, match=r"s3://landing.*credentials are refused: set AWS_ACCESS_KEY_ID") as caught:
        orders(server).batches()
    assert "not-the-right-one" not in str(caught.value)
    assert server.secret not in str(caught.value)


def test_without_any_credentials_the_message_says_what_to_set(server: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(SourceError, match=r"s3://landing.*AWS_ACCESS_KEY_ID"):
        orders(server).batches()


def test_a_missing_bucket_and_a_server_that_does_not_answer_are_named(server: S3) -> None:
    with pytest.raises(SourceError, match=r"s3://nowhere: NoSuchBucket.*mend source.uri"):
        orders(server, "nowhere").batches()
    silent = S3("http://127.0.0.1:9", server.key_id, server.secret)
    with pytest.raises(SourceError, match="does not answer"):
        orders(silent).batches()
