"""S3 over HTTP, against moto's server, which checks who asks once it is told to."""

import io
import json
from collections.abc import Iterator

import boto3
import polars as pl
import pytest
import requests
from moto.server import ThreadedMotoServer

from ml_assets.errors import SourceError
from ml_assets.sources import FileSource, open_source
from ml_assets.spec import FilesSource

FRAME = pl.DataFrame({"id": [1, 2]})


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture
def s3(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The server with a bucket and one object; from here on it refuses unknown keys."""
    requests.post(f"{server}/moto-api/reset", timeout=10)
    requests.post(f"{server}/moto-api/reset-auth", data=b"inf", timeout=10)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    session = boto3.Session()
    iam = session.client("iam", endpoint_url=server)
    iam.create_user(UserName="reader")
    allow = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    iam.put_user_policy(UserName="reader", PolicyName="all", PolicyDocument=json.dumps(allow))
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    client = session.client("s3", endpoint_url=server)
    client.create_bucket(Bucket="landing")
    content = io.BytesIO()
    FRAME.write_parquet(content)
    for name in ("orders/1.parquet", "orders/2.parquet", "other/3.parquet"):
        client.put_object(Bucket="landing", Key=name, Body=content.getvalue())
    requests.post(f"{server}/moto-api/reset-auth", data=b"0", timeout=10)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    return server


def orders(server: str, bucket: str = "landing") -> FileSource:
    spec = FilesSource(kind="files", uri=f"s3://{bucket}/orders/*.parquet")
    return open_source(spec, "demo: source", server)


def test_objects_below_the_prefix_are_batches_and_are_read(s3: str) -> None:
    found = orders(s3)
    assert [each.id for each in found.batches()] == ["1.parquet", "2.parquet"]
    assert found.read(found.batches()[0]).equals(FRAME)


def test_wrong_credentials_are_one_clear_message_without_the_secret(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    with pytest.raises(SourceError, match=r"s3://landing.*credentials are refused: set AWS_ACCESS_KEY_ID") as caught:
        orders(s3).batches()
    assert "not-the-secret" not in str(caught.value)


def test_a_missing_bucket_and_a_server_that_does_not_answer_are_named(s3: str) -> None:
    with pytest.raises(SourceError, match=r"s3://nowhere: NoSuchBucket.*mend source.uri"):
        orders(s3, "nowhere").batches()
    with pytest.raises(SourceError, match="does not answer"):
        orders("http://127.0.0.1:9").batches()
