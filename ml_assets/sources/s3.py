"""Objects below an S3 prefix."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ml_assets.errors import SourceError
from ml_assets.sources.batch import Batch
from ml_assets.sources.patterns import fixed_part, matches
from ml_assets.spec import FilesSource


@dataclass(frozen=True)
class S3Objects:
    """Objects below an S3 prefix that match a pattern. An object's fingerprint is its ETag."""

    spec: FilesSource
    endpoint_url: str | None
    place: str

    @property
    def pattern(self) -> str:
        return self.spec.uri

    def changed(self) -> bool:
        return True

    def _client(self) -> Any:
        from dagster_aws.s3 import S3Resource

        return S3Resource(endpoint_url=self.endpoint_url).get_client()

    def address(self, batch: Batch) -> str:
        return f"{fixed_part(self.pattern)}/{batch.id}"

    def list(self) -> list[Batch]:
        bucket, _, key_pattern = self.pattern.removeprefix("s3://").partition("/")
        prefix = re.split(r"[*?\[]", key_pattern, maxsplit=1)[0]
        root = fixed_part(self.pattern) + "/"
        with self._explained(bucket):
            pages = self._client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            return sorted(
                Batch(f"s3://{bucket}/{item['Key']}".removeprefix(root), item["ETag"].strip('"'))
                for page in pages
                for item in page.get("Contents", [])
                if matches(item["Key"], key_pattern)
            )

    def open(self, batch: Batch) -> bytes:
        bucket, _, key = self.address(batch).removeprefix("s3://").partition("/")
        with self._explained(bucket):
            content: bytes = self._client().get_object(Bucket=bucket, Key=key)["Body"].read()
        if not content:
            raise SourceError(f"{self.place}: {self.address(batch)} is empty (0 bytes); remove it or land it again")
        return content

    @contextmanager
    def _explained(self, bucket: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

        try:
            yield
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if code in ("NoSuchBucket", "NoSuchKey"):
                advice = "create it or mend source.uri"
            elif status in (401, 403):
                advice = "the credentials are refused: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            else:
                advice = "see the message of S3"
            raise SourceError(f"{self.place}: s3://{bucket}: {code} ({status}): {advice}") from None
        except (NoCredentialsError, PartialCredentialsError) as error:
            advice = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            raise SourceError(f"{self.place}: s3://{bucket}: {error}; {advice}") from None
        except BotoCoreError as error:
            raise SourceError(f"{self.place}: s3://{bucket} does not answer: {error}") from None
