"""Requests to AWS, held against the service's own description before they are sent.

botocore checks required members, types and least values; enumerations, most values, lengths and patterns it leaves to
the service, which would refuse the third of five calls.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

from ml_assets.errors import SourceError, SourceUnavailableError, TargetError, TargetUnavailableError
from ml_assets.sources import aws

_PASSING = ("in-progress", "in progress", "is being", "Cannot update", "must be in InService")
_ADVICE = {
    "ResourceLimitExceeded": "the account has no more of this type of instance; ask AWS for a higher quota, or set "
    "endpoint.sagemaker.instance",
    "AccessDeniedException": "the credentials may not do that; grant it to them, iam:PassRole for the role included",
}
Expected = Callable[[str, str], bool]


def ask(client: Any, where: str, operation: str, expected: Expected | None = None, **request: Any) -> Any:
    """The service's answer; None for an error that is expected.

    Args:
        operation: as the service spells it, such as `CreateModel`.
        expected: whether an error, by code and message, is an answer as well.

    Raises:
        TargetUnavailableError: throttled, not answering, or changing; after five tries.
        TargetError: refused, or not what the service's description allows, which is not sent at all.
    """
    from botocore import xform_name
    from botocore.exceptions import ClientError

    wrong = faults(client.meta.service_model.operation_model(operation).input_shape, request)
    if wrong:
        raise TargetError(f"{where}: {operation} would be refused: {'; '.join(wrong)}")

    def once() -> Any:
        try:
            return getattr(client, xform_name(operation))(**request)
        except ClientError as error:
            said = error.response.get("Error", {})
            code, message = str(said.get("Code", "")), str(said.get("Message", ""))
            if expected is not None and expected(code, message):
                return None
            if code in ("ValidationException", "ResourceInUse") and any(each in message for each in _PASSING):
                raise TargetUnavailableError(f"{where}: {operation}: {message}") from None
            raise

    return _called(f"{where}: {operation}", once)


def connect(service: str, endpoint_url: str | None, where: str) -> Any:
    """A client of a service.

    Raises:
        TargetError: if no region is set, or a profile that there is not.
    """
    return _called(where, lambda: aws.client(service, endpoint_url))


def _called(where: str, call: Callable[[], Any]) -> Any:
    """What `call` gives; errors of sources, which `sources.aws` speaks of, are errors of targets here."""
    try:
        return aws.call(where, call, _ADVICE)
    except SourceUnavailableError as error:
        raise TargetUnavailableError(str(error)) from None
    except SourceError as error:
        raise TargetError(str(error)) from None


def missing(code: str, message: str) -> bool:
    """Whether an error says that what was named is not there."""
    return code in ("ValidationException", "ResourceNotFound", "ObjectNotFoundException") and "ould not find" in message


def exists(code: str, message: str) -> bool:
    """Whether an error says that the name is taken."""
    return code in ("ValidationException", "ResourceInUse") and "already exist" in message


def faults(shape: Any, value: Any, path: str = "") -> list[str]:
    """What of a request the service's description does not allow, by path."""
    limits = shape.metadata
    if shape.type_name == "structure":
        return [
            each
            for name, member in shape.members.items()
            if name in value
            for each in faults(member, value[name], f"{path}.{name}".lstrip("."))
        ]
    if shape.type_name == "list":
        found = _size(len(value), limits, f"{path}: {len(value)} entries")
        return found + [each for n, item in enumerate(value) for each in faults(shape.member, item, f"{path}[{n}]")]
    if shape.type_name == "map":
        found = _size(len(value), limits, f"{path}: {len(value)} entries")
        return found + [
            each
            for key, item in value.items()
            for each in (*faults(shape.key, key, f"{path} key"), *faults(shape.value, item, f"{path}[{key}]"))
        ]
    if shape.type_name == "string":
        if enum := getattr(shape, "enum", None):
            return [] if value in enum else [f"{path} {value!r} is none of {', '.join(enum)}"]
        found = _size(len(value), limits, f"{path} {value!r}: {len(value)} characters")
        pattern = _pattern(limits.get("pattern", ""))
        if pattern is not None and not pattern.fullmatch(value):
            found.append(f"{path} {value!r} does not match {pattern.pattern}")
        return found
    if shape.type_name in ("integer", "long", "float", "double"):
        return _size(value, limits, f"{path} {value}")
    return []


@functools.cache
def _pattern(text: str) -> re.Pattern[str] | None:
    """A pattern that Python understands too; those of Java's alone, such as classes of Unicode, are left to AWS."""
    try:
        return re.compile(text) if text else None
    except re.error:
        return None


def _size(value: float, limits: dict[str, Any], said: str) -> list[str]:
    if "max" in limits and value > limits["max"]:
        return [f"{said}, and {limits['max']} is the most"]
    if "min" in limits and value < limits["min"]:
        return [f"{said}, and {limits['min']} is the least"]
    return []
