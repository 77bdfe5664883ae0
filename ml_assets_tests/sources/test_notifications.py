import json
import logging
from collections.abc import Iterator

import pytest

from ml_assets.access import Access
from ml_assets.errors import SourceError
from ml_assets.sources import notifications, open_source, retries
from ml_assets.sources.listing import Listing
from ml_assets.spec.sources import FilesSource
from ml_assets_tests.faults import RESET, Proxy, answer, faulty
from ml_assets_tests.s3 import S3, s3_server


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with s3_server() as s3:
        yield s3


@pytest.fixture
def proxy(server: S3) -> Iterator[Proxy]:
    with faulty(server.url) as running:
        yield running


@pytest.fixture(autouse=True)
def _surroundings(server: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.variables().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(notifications, "WAIT", 0)


def listing(proxy: Proxy, bucket: str, queue: str) -> Listing:
    spec = FilesSource(kind="files", uri=f"s3://{bucket}/orders/**/*.csv", queue=queue)
    return Listing(open_source(spec, "demo: source", Access(proxy.url)))


def lists(proxy: Proxy) -> int:
    """Requests for a listing since this was last asked."""
    count = sum("list-type=2" in path for _, path in proxy.asked)
    proxy.asked.clear()
    return count


@pytest.mark.parametrize("through_topic", [False, True], ids=["sqs", "sns"])
def test_only_a_notification_of_a_matching_object_costs_a_listing(
    server: S3, proxy: Proxy, through_topic: bool
) -> None:
    bucket = f"events-{through_topic}".lower()
    server.create_bucket(bucket)
    server.put(bucket, "orders/1.csv", b"id\n1\n")
    queue = server.notify(bucket, bucket, through_topic=through_topic)
    found = listing(proxy, bucket, queue)
    assert len(found.batches(certain=False)) == 1
    assert lists(proxy) == 1
    assert len(found.batches(certain=False)) == 1
    server.put(bucket, "other/2.csv", b"id\n2\n")
    assert len(found.batches(certain=False)) == 1
    assert lists(proxy) == 0
    for number in range(25):
        server.put(bucket, f"orders/a b/ü+{number}.csv", b"id\n3\n")
    assert len(found.batches(certain=False)) == 26
    assert len(found.batches(certain=False)) == 26
    assert lists(proxy) == 1
    server.delete(bucket, "orders/1.csv")
    assert len(found.batches(certain=False)) == 25
    assert lists(proxy) == 1
    assert server.in_queue(queue) == 0


STRANGE = {
    "no-json": "s3:",
    "a-list": "[]",
    "no-records": json.dumps({"detail": {}}),
    "no-bucket": json.dumps({"Records": [{"s3": {}}]}),
}


@pytest.mark.parametrize(("bucket", "body"), STRANGE.items(), ids=STRANGE)
def test_a_message_that_cannot_be_understood_counts_as_a_change_once_and_is_logged(
    server: S3, proxy: Proxy, bucket: str, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.create_bucket(bucket)
    queue = server.notify(bucket, bucket)
    found = listing(proxy, bucket, queue)
    found.batches(certain=False)
    found.batches(certain=False)
    lists(proxy)
    server.send(queue, body)
    with caplog.at_level(logging.WARNING):
        found.batches(certain=False)
        found.batches(certain=False)
    assert lists(proxy) == 1
    assert server.in_queue(queue) == 0
    (line,) = [each.getMessage() for each in caplog.records if each.name == notifications.__name__]
    assert line.startswith(f"demo: source: {queue} holds a message that is no S3 event; listing anew")


def test_a_queue_that_stumbles_is_asked_again_and_one_that_is_missing_is_named_at_the_first_try(
    server: S3, proxy: Proxy
) -> None:
    server.create_bucket("stumbling")
    queue = server.notify("stumbling", "stumbling")
    found = listing(proxy, "stumbling", queue)
    found.batches(certain=False)
    found.batches(certain=False)
    proxy.reset(answer(503), RESET)
    found.batches(certain=False)
    assert len(proxy.asked) == 3
    missing = listing(proxy, "stumbling", queue.replace("stumbling", "nowhere"))
    missing.batches(certain=False)
    proxy.reset()
    with pytest.raises(SourceError, match=r"demo: source: \S+/nowhere: \S+NonExistentQueue.*mend source.queue"):
        missing.batches(certain=False)
    assert len(proxy.asked) == 1


def test_a_queue_with_wrong_credentials_is_refused_at_the_first_try(
    server: S3, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.create_bucket("refused")
    found = listing(proxy, "refused", server.notify("refused", "refused"))
    found.batches(certain=False)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-right-one")
    proxy.reset()
    with pytest.raises(SourceError, match="credentials are refused") as caught:
        found.batches(certain=False)
    assert "not-the-right-one" not in str(caught.value)
    assert len(proxy.asked) == 1
