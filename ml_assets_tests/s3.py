"""moto's server as S3 over HTTP, which checks who asks once it is told to."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import boto3
import requests
from moto.server import ThreadedMotoServer

ACCOUNT = "123456789012"  # moto's


@dataclass(frozen=True)
class S3:
    """A running server with a user who may do everything; other keys and secrets are refused."""

    url: str
    key_id: str
    secret: str

    def variables(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def put(self, bucket: str, key: str, content: bytes) -> None:
        self._client.put_object(Bucket=bucket, Key=key, Body=content)

    def delete(self, bucket: str, key: str) -> None:
        self._client.delete_object(Bucket=bucket, Key=key)

    def keys(self, bucket: str) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def create_bucket(self, bucket: str) -> None:
        self._client.create_bucket(Bucket=bucket)

    def empty_and_delete(self, bucket: str) -> None:
        client = self._client
        for item in client.list_objects_v2(Bucket=bucket).get("Contents", []):
            client.delete_object(Bucket=bucket, Key=item["Key"])
        client.delete_bucket(Bucket=bucket)

    def put_many(self, bucket: str, contents: dict[str, bytes]) -> None:
        """Put objects past HTTP, which would take minutes for thousands."""
        from moto.s3.models import s3_backends

        backend = s3_backends[ACCOUNT]["aws"]
        for key, content in contents.items():
            backend.put_object(bucket, key, content, disable_notification=True)

    def notify(self, bucket: str, queue: str, *, through_topic: bool = False) -> str:
        """Have a bucket's events sent to a new queue, directly or through an SNS topic; the queue's URL."""
        url: str = self._sqs.create_queue(QueueName=queue)["QueueUrl"]
        arn = f"arn:aws:sqs:us-east-1:{ACCOUNT}:{queue}"
        events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
        configuration = {"QueueConfigurations": [{"QueueArn": arn, "Events": events}]}
        if through_topic:
            sns = self._session.client("sns", endpoint_url=self.url)
            topic = sns.create_topic(Name=queue)["TopicArn"]
            sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
            configuration = {"TopicConfigurations": [{"TopicArn": topic, "Events": events}]}
        self._client.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=configuration)
        return url

    def send(self, queue: str, *bodies: str) -> None:
        """Send messages to a queue."""
        for body in bodies:
            self._sqs.send_message(QueueUrl=queue, MessageBody=body)

    def in_queue(self, queue: str) -> int:
        """Messages of a queue that were not deleted, those in flight included."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        told = self._sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
        return sum(map(int, told.values()))

    @cached_property
    def _client(self) -> Any:
        return self._session.client("s3", endpoint_url=self.url)

    @cached_property
    def _sqs(self) -> Any:
        return self._session.client("sqs", endpoint_url=self.url)

    @cached_property
    def _session(self) -> Any:
        return boto3.Session(self.key_id, self.secret, region_name="us-east-1")


@contextlib.contextmanager
def s3_server() -> Iterator[S3]:
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    moto.start()
    host, port = moto.get_host_and_port()
    url = f"http://{host}:{port}"
    try:
        requests.post(f"{url}/moto-api/reset", timeout=10)
        requests.post(f"{url}/moto-api/reset-auth", data=b"inf", timeout=10)
        iam = boto3.Session("any", "any", region_name="us-east-1").client("iam", endpoint_url=url)
        iam.create_user(UserName="tests")
        allow = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
        iam.put_user_policy(UserName="tests", PolicyName="all", PolicyDocument=json.dumps(allow))
        key = iam.create_access_key(UserName="tests")["AccessKey"]
        requests.post(f"{url}/moto-api/reset-auth", data=b"0", timeout=10)
        # boto3's own session, which MLflow asks for, keeps the keys that it found first: those of another server.
        boto3.DEFAULT_SESSION = None
        yield S3(url, key["AccessKeyId"], key["SecretAccessKey"])
    finally:
        boto3.DEFAULT_SESSION = None
        moto.stop()
