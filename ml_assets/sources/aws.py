"""Clients of AWS services, and which of their errors pass.

botocore's own retries are off, so that the log says which try failed and why; see `retries.py`.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from ml_assets.errors import SourceError
from ml_assets.sources.retries import TransientError, with_retries

CONNECT_TIMEOUT, READ_TIMEOUT = 10.0, 60.0  # seconds
_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
_ADVICE = {
    "RequestTimeTooSkewed": "the clock of this machine is wrong; set it",
    "ExpiredToken": "the credentials have expired; renew AWS_SESSION_TOKEN, or log in again",
}
_PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_PASSING_CODES = frozenset(
    {
        *("InternalError", "InternalFailure", "ServiceUnavailable", "RequestTimeout", "RequestTimeoutException"),
        *("SlowDown", "Throttling", "ThrottlingException", "RequestThrottled", "RequestLimitExceeded"),
        *("BandwidthLimitExceeded", "TooManyRequestsException", "PriorRequestNotComplete"),
    }
)
T = TypeVar("T")


def client(service: str, endpoint_url: str | None) -> Any:
    """A boto3 client with credentials and region found the normal way.

    S3's comes with the options of dagster-aws's `S3Resource`; that takes no time-outs, so they are added here.
    """
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        retries={"mode": "standard", "total_max_attempts": 1},
    )
    session = boto3.Session()
    if service != "s3":
        return session.client(service, endpoint_url=endpoint_url, config=config)
    from dagster_aws.s3 import S3Resource

    plain = S3Resource(endpoint_url=endpoint_url, max_attempts=0).get_client()
    return session.client("s3", endpoint_url=endpoint_url, config=plain.meta.config.merge(config))


def call(where: str, ask: Callable[[], T], advice: dict[str, str]) -> T:
    """What `ask` gives, tried again while its error is one that passes.

    Args:
        where: model and bucket or queue, for messages.
        advice: what to do about the service's own error codes.

    Raises:
        SourceError: with code, status and advice, and never with a secret.
    """

    def once() -> T:
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError

        try:
            return ask()
        except (BotoCoreError, ClientError, ResponseParserError, ConnectionError) as error:
            raise _explained(where, error, advice) from None

    return with_retries(once)


def _explained(where: str, error: Exception, advice: dict[str, str]) -> SourceError:
    from botocore import exceptions
    from botocore.parsers import ResponseParserError

    if isinstance(error, exceptions.ClientError):
        code = error.response.get("Error", {}).get("Code", "")
        answer = error.response.get("ResponseMetadata", {})
        status = answer.get("HTTPStatusCode", 0)
        if status in _PASSING_STATUS or code in _PASSING_CODES:
            asked = str(answer.get("HTTPHeaders", {}).get("retry-after", ""))
            # botocore takes an XML body that broke off for an error 500 without a code of its own
            told = "a body that is empty or broke off" if code == str(status) else code
            return TransientError(f"{where}: {told} ({status})", float(asked) if asked.isdecimal() else None)
        refused = f"the credentials are refused: {_CREDENTIALS}, or grant them access" if status in (401, 403) else None
        message = error.response.get("Error", {}).get("Message", "")
        return SourceError(f"{where}: {code} ({status}): {(advice | _ADVICE).get(code) or refused or message}")
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return SourceError(f"{where}: {error}; {_CREDENTIALS}")
    if isinstance(error, exceptions.NoRegionError):
        return SourceError(f"{where}: {error} Set AWS_DEFAULT_REGION")
    if isinstance(error, exceptions.IncompleteReadError | exceptions.ResponseStreamingError | ResponseParserError):
        return TransientError(f"{where}: the answer broke off: {str(error).splitlines()[0]}")
    passing = exceptions.ConnectionError | exceptions.HTTPClientError | ConnectionError
    if isinstance(error, passing) and not isinstance(error, exceptions.SSLError):
        return TransientError(f"{where} does not answer: {error}")
    return SourceError(f"{where}: {error}")
