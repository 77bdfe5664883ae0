"""S3 event notifications in an SQS queue: whether anything arrived below a prefix, without listing it.

Messages are deleted once read, so each model and environment needs a queue of its own: with a shared one each would
find only what the others left. A lost message costs time, never data, because the prefix is listed anew every
`list_every`, and by every process once.
"""

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import unquote_plus

from ml_assets.sources import aws
from ml_assets.sources.patterns import matches

WAIT = 1  # seconds; with any wait SQS asks all its servers, without one only some of them
LONGEST_DRAIN = 20.0  # seconds a tick may spend here; the next one goes on
_ADVICE = {
    "AWS.SimpleQueueService.NonExistentQueue": "create it or mend source.queue",
    "QueueDoesNotExist": "create it or mend source.queue",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Notifications:
    """The queue to which one bucket's events go.

    Attributes:
        pattern: keys that concern this source.
        place: model and key in its YAML, for messages.
    """

    queue: str
    bucket: str
    pattern: str
    endpoint_url: str | None
    place: str

    def arrived(self) -> bool:
        """Empty the queue. True if a message concerns an object of the pattern, or cannot be understood.

        Raises:
            SourceError: if the queue does not exist, refuses the credentials, or does not answer after some tries.
        """
        arrived = False
        deadline = time.monotonic() + LONGEST_DRAIN
        while messages := self._receive():
            concerned = [self._concerns(each.get("Body", "")) for each in messages]
            arrived = arrived or any(concerned)
            self._delete(messages)
            if time.monotonic() > deadline:
                return True  # what is still in the queue may concern it
        return arrived

    def _concerns(self, body: str) -> bool:
        try:
            return any(bucket == self.bucket and matches(key, self.pattern) for bucket, key in objects_of(body))
        except ValueError as error:
            log.warning("%s: %s holds a message that is no S3 event; listing anew: %s", self.place, self.queue, error)
            return True

    def _receive(self) -> list[dict[str, Any]]:
        """The next messages; none too if the answer broke off, which botocore hides: SQS hands these out again."""

        def ask() -> list[dict[str, Any]]:
            answer = self._client.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10, WaitTimeSeconds=WAIT)
            messages: list[dict[str, Any]] = answer.get("Messages", [])
            return messages

        return aws.call(f"{self.place}: {self.queue}", ask, _ADVICE)

    def _delete(self, messages: list[dict[str, Any]]) -> None:
        """Those that SQS fails to delete come again and cost one more listing."""
        entries = [{"Id": str(n), "ReceiptHandle": each["ReceiptHandle"]} for n, each in enumerate(messages)]
        aws.call(
            f"{self.place}: {self.queue}",
            lambda: self._client.delete_message_batch(QueueUrl=self.queue, Entries=entries),
            _ADVICE,
        )

    @cached_property
    def _client(self) -> Any:
        return aws.client("sqs", self.endpoint_url)


def objects_of(body: str) -> Iterator[tuple[str, str]]:
    """Bucket and key of each object that a message tells of; none for S3's test event.

    Args:
        body: an S3 event as JSON, as it is or wrapped by SNS.

    Raises:
        ValueError: if it is neither.
    """
    event = json.loads(body)
    if isinstance(event, dict) and event.get("Type") == "Notification":
        event = json.loads(str(event.get("Message")))
    if not isinstance(event, dict):
        raise ValueError(f"a {type(event).__name__}")
    if event.get("Event") == "s3:TestEvent":
        return
    try:
        for record in event["Records"]:
            yield record["s3"]["bucket"]["name"], unquote_plus(record["s3"]["object"]["key"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it has {', '.join(event)}, and no {error}") from None
