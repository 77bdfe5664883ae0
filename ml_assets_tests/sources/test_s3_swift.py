"""What moto cannot tell: the S3 source against a server that is no mock."""

import os
import subprocess
from collections.abc import Iterator

import pytest

from ml_assets.access import Access
from ml_assets.errors import SourceError
from ml_assets.sources import Source, open_source
from ml_assets.spec.sources import FilesSource
from ml_assets_tests.faults import Proxy, faulty
from ml_assets_tests.s3 import S3
from ml_assets_tests.swift import programs, swift_server

NAMES = [f"2025-01-0{day}.csv" for day in range(1, 8)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    try:
        programs()
    except subprocess.CalledProcessError:
        if os.environ.get("CI"):
            raise
        pytest.skip("Swift cannot be installed from the package index")
    with swift_server(tmp_path_factory.mktemp("swift")) as swift:
        swift.create_bucket("landing")
        for name in NAMES:
            swift.put("landing", f"orders/{name}", f"id\n{name}\n".encode())
        yield swift


@pytest.fixture
def proxy(server: S3) -> Iterator[Proxy]:
    with faulty(server.url) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def _credentials(server: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.variables().items():
        monkeypatch.setenv(name, value)


def orders(proxy: Proxy, bucket: str = "landing") -> Source:
    spec = FilesSource(kind="files", uri=f"s3://{bucket}/orders/*.csv")
    return open_source(spec, "demo: source", Access(proxy.url))


def test_all_pages_are_listed_and_objects_are_read(proxy: Proxy) -> None:
    source = orders(proxy)
    found = source.batches()
    assert [each.id for each in found] == NAMES
    assert len(proxy.asked) == 3  # pages of three
    assert [source.read(each).item() for each in found] == NAMES


def test_an_object_that_is_overwritten_changes_its_fingerprint_and_is_not_taken_for_the_listed_one(
    server: S3, proxy: Proxy
) -> None:
    source = orders(proxy)
    before = source.batches()
    server.put("landing", f"orders/{NAMES[3]}", b"id\nnew\n")
    after = source.batches()
    assert [old.id for old, new in zip(before, after, strict=True) if old != new] == [NAMES[3]]
    assert source.read(after[3]).item() == "new"
    with pytest.raises(SourceError, match=r"04\.csv: PreconditionFailed \(412\): changed while it was read"):
        source.read(before[3])


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_refused_at_the_first_try(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "not-the-right-one")
    with pytest.raises(SourceError, match=r"s3://landing.*credentials are refused: set AWS_ACCESS_KEY_ID") as caught:
        orders(proxy).batches()
    assert "not-the-right-one" not in str(caught.value)
    assert len(proxy.asked) == 1


def test_a_missing_bucket_is_named_at_the_first_try(proxy: Proxy) -> None:
    with pytest.raises(SourceError, match=r"s3://nowhere: NoSuchBucket.*mend source.uri"):
        orders(proxy, "nowhere").batches()
    assert len(proxy.asked) == 1
