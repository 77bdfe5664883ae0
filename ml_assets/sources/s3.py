"""Objects below an S3 prefix."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ml_assets.errors import SourceError
from ml_assets.sources import aws
from ml_assets.sources.batch import Batch
from ml_assets.sources.notifications import Notifications
from ml_assets.sources.patterns import fixed_part, matches
from ml_assets.spec.sources import FilesSource

_ADVICE = {
    "NoSuchBucket": "create it or mend source.uri",
    "NoSuchKey": "it is gone; land it again",
    "PreconditionFailed": "changed while it was read; the next tick reads it again",
    "PermanentRedirect": "the bucket lies in another region; set AWS_DEFAULT_REGION",
}


@dataclass(frozen=True)
class S3Objects:
    """Objects below an S3 prefix that match a pattern. An object's fingerprint is its ETag."""

    spec: FilesSource
    endpoint_url: str | None
    place: str

    @property
    def pattern(self) -> str:
        return self.spec.uri

    @property
    def bucket(self) -> str:
        return self.pattern.removeprefix("s3://").partition("/")[0]

    @property
    def key_pattern(self) -> str:
        return self.pattern.removeprefix("s3://").partition("/")[2]

    def address(self, batch: Batch) -> str:
        return f"{fixed_part(self.pattern)}/{batch.id}"

    def changed(self) -> bool:
        """Whether the queue told of a matching object since it was last asked; True without a queue."""
        return self._notifications is None or self._notifications.arrived()

    def list(self) -> list[Batch]:
        root = fixed_part(self.pattern) + "/"
        return sorted(
            Batch(f"s3://{self.bucket}/{item['Key']}".removeprefix(root), item["ETag"].strip('"'))
            for page in self._pages()
            for item in page.get("Contents", [])
            if matches(item["Key"], self.key_pattern)
        )

    def open(self, batch: Batch) -> bytes:
        """The very content that was listed.

        Raises:
            SourceError: if it was replaced or removed since.
        """
        address = self.address(batch)
        key = address.removeprefix(f"s3://{self.bucket}/")

        def read() -> bytes:
            listed = f'"{batch.fingerprint}"'
            body: bytes = self._client.get_object(Bucket=self.bucket, Key=key, IfMatch=listed)["Body"].read()
            return body

        content = aws.call(f"{self.place}: {address}", read, _ADVICE)
        if not content:
            raise SourceError(f"{self.place}: {address} is empty (0 bytes); remove it or land it again")
        return content

    def _pages(self) -> Iterator[dict[str, Any]]:
        """The listing; a page that fails is asked for again by itself."""
        asked = {"Bucket": self.bucket, "Prefix": re.split(r"[*?\[]", self.key_pattern, maxsplit=1)[0]}
        where = f"{self.place}: s3://{self.bucket}"
        while True:
            page: dict[str, Any] = aws.call(where, lambda: self._client.list_objects_v2(**asked), _ADVICE)
            yield page
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    @cached_property
    def _client(self) -> Any:
        return aws.client("s3", self.endpoint_url)

    @cached_property
    def _notifications(self) -> Notifications | None:
        if self.spec.queue is None:
            return None
        return Notifications(self.spec.queue, self.bucket, self.key_pattern, self.endpoint_url, self.place)
