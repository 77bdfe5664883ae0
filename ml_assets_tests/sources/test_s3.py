import io
import logging
import re
from collections.abc import Iterator

import polars as pl
import pytest

from ml_assets.access import Access
from ml_assets.errors import SourceError
from ml_assets.sources import Source, aws, open_source, retries
from ml_assets.spec.sources import FilesSource
from ml_assets_tests.faults import RESET, SILENT, TRUNCATED, Fault, Proxy, answer, faulty
from ml_assets_tests.s3 import S3, s3_server

FRAME = pl.DataFrame({"id": [1, 2]})


def parquet(frame: pl.DataFrame = FRAME) -> bytes:
    content = io.BytesIO()
    frame.write_parquet(content)
    return content.getvalue()


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with s3_server() as s3:
        s3.create_bucket("landing")
        for name in ("orders/1.parquet", "orders/2.parquet", "other/3.parquet"):
            s3.put("landing", name, parquet())
        yield s3


@pytest.fixture(scope="module")
def running(server: S3) -> Iterator[Proxy]:
    with faulty(server.url) as proxy:
        yield proxy


@pytest.fixture
def proxy(running: Proxy) -> Proxy:
    running.reset()
    return running


@pytest.fixture(autouse=True)
def _surroundings(server: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.variables().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.01)


def orders(server: S3 | Proxy, bucket: str = "landing", pattern: str = "orders/*.parquet") -> Source:
    spec = FilesSource(kind="files", uri=f"s3://{bucket}/{pattern}")
    return open_source(spec, "demo: source", Access(server.url))


def test_objects_below_the_prefix_are_batches_and_are_read(server: S3) -> None:
    found = orders(server)
    assert [each.id for each in found.batches()] == ["1.parquet", "2.parquet"]
    assert found.read(found.batches()[0]).equals(FRAME)


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_one_clear_message_without_the_secret_at_the_first_try(
    server: S3, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "not-the-right-one")
    with pytest.raises(SourceError, match=r"s3://landing.*credentials are refused: set AWS_ACCESS_KEY_ID") as caught:
        orders(proxy).batches()
    assert "not-the-right-one" not in str(caught.value)
    assert server.secret not in str(caught.value)
    assert len(proxy.asked) == 1


def test_without_any_credentials_the_message_says_what_to_set(server: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(SourceError, match=r"s3://landing.*AWS_ACCESS_KEY_ID"):
        orders(server).batches()


def test_a_missing_bucket_is_named_at_the_first_try(proxy: Proxy) -> None:
    with pytest.raises(SourceError, match=r"s3://nowhere: NoSuchBucket.*mend source.uri"):
        orders(proxy, "nowhere").batches()
    assert len(proxy.asked) == 1


def test_a_server_that_does_not_answer_is_tried_to_the_last(server: S3) -> None:
    silent = S3("http://127.0.0.1:9", server.key_id, server.secret)
    with pytest.raises(SourceError, match=rf"does not answer.*tried {retries.MOST_TRIES} times"):
        orders(silent).batches()


SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
FAULTS = {
    "429": (answer(429, Retry_After="0"), "429"),
    "500": (answer(500), "500"),
    "503": (answer(503, SLOW_DOWN), r"SlowDown \(503\)"),
    "reset": (RESET, "does not answer"),
    "truncated": (TRUNCATED, "broke off"),
    "silent": (SILENT, "does not answer.*timeout"),
}


@pytest.mark.parametrize(("fault", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_passing_fault_of_listing_or_reading_is_tried_again_and_logged(
    proxy: Proxy,
    fault: Fault,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(aws, "READ_TIMEOUT", 0.5)
    source = orders(proxy)
    with caplog.at_level(logging.WARNING):
        proxy.reset(fault)
        first, _ = source.batches()
        proxy.reset(fault, fault)
        assert source.read(first).equals(FRAME)
    lines = [each.getMessage() for each in caplog.records if each.name == retries.__name__]
    assert [line[:13] for line in lines] == ["try 1 of 5 fa", "try 1 of 5 fa", "try 2 of 5 fa"]
    for line in lines:
        assert re.search(f"demo: source: s3://landing.*{reason}", line)


def test_a_fault_that_stays_ends_after_all_tries_with_its_reason(proxy: Proxy) -> None:
    proxy.reset(*[RESET] * 9)
    with pytest.raises(SourceError, match=rf"s3://landing does not answer.*\(tried {retries.MOST_TRIES} times\)"):
        orders(proxy).batches()
    assert len(proxy.asked) == retries.MOST_TRIES


def test_an_object_that_is_replaced_or_removed_after_it_was_listed_is_not_taken_for_the_listed_one(
    server: S3, proxy: Proxy
) -> None:
    source = orders(proxy, pattern="moving/*.parquet")
    server.put("landing", "moving/1.parquet", parquet())
    (before,) = source.batches()
    server.put("landing", "moving/1.parquet", parquet(FRAME.head(1)))
    proxy.reset()
    with pytest.raises(SourceError, match=r"moving/1.parquet: .*changed while it was read; the next tick reads it"):
        source.read(before)
    assert len(proxy.asked) == 1
    (after,) = source.batches()
    assert after.fingerprint != before.fingerprint
    assert source.read(after).equals(FRAME.head(1))
    server.delete("landing", "moving/1.parquet")
    with pytest.raises(SourceError, match=r"moving/1.parquet: NoSuchKey \(404\): it is gone; land it again"):
        source.read(after)


def test_thousands_of_objects_are_listed_over_all_pages_in_name_order(server: S3, proxy: Proxy) -> None:
    names = [f"{number // 100:02}/{number:05}.csv" for number in range(5_000)]
    server.create_bucket("large")
    server.put_many("large", {f"orders/{name}": name.encode() for name in reversed(names)})
    source = orders(proxy, "large", "orders/**/*.csv")
    proxy.reset(None, RESET)
    before = source.batches()
    assert [each.id for each in before] == names
    assert len(proxy.asked) == 6  # five pages, of which the second was asked for again
    server.put("large", f"orders/{names[4_321]}", b"changed")
    after = source.batches()
    assert [old.id for old, new in zip(before, after, strict=True) if old != new] == [names[4_321]]
