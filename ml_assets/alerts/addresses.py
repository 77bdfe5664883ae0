"""`ML_ASSETS_ALERTS`: where alerts go, one address each, with spaces between them.

    https://host/hook                                     a webhook, which gets JSON
    slack+https://hooks.slack.com/services/...            a webhook in Slack's format
    smtp://user:password@host:587?from=a@b&to=c@d,e@f     mail; smtps:// for TLS from the start
    sns:arn:aws:sns:eu-west-1:123456789012:topic          SNS

Each may end with `#warn` (the default) or `#error`: the least severity that goes there.
"""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Literal, cast
from urllib.parse import parse_qs, unquote, urlsplit

from ml_assets.spec.operating import Severity

Form = Literal["webhook", "slack", "smtp", "smtps", "sns"]
LEAST: tuple[str, ...] = ("warn", "error")
_KNOWN = "https://, http://, slack+https://, smtp://, smtps:// or sns:arn:aws:sns:"
_MAIL = re.compile(r"[^@\s,<>]+@[^@\s,<>]+")


@dataclass(frozen=True)
class Address:
    """Where alerts go.

    Attributes:
        name: for people and for the outbox: without any secret, and the same after a password was changed.
        least: severity without which nothing goes there.
        url: of a webhook; it is a secret. Of SNS, the ARN.
    """

    form: Form
    name: str
    least: Severity
    url: str = field(default="", repr=False)
    host: str = ""
    port: int = 0
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    sender: str = ""
    to: tuple[str, ...] = ()

    def takes(self, severity: Severity) -> bool:
        return LEAST.index(severity) >= LEAST.index(self.least)


def read_addresses(text: str) -> tuple[Address, ...]:
    """The addresses of a text.

    Raises:
        ValueError: saying which one is wrong, by its number, and what about it; never with its text, which may hold a
            password.
    """
    found: list[Address] = []
    for number, each in enumerate(text.split(), start=1):
        try:
            address = _read(each)
        except ValueError as error:
            raise ValueError(f"address {number}: {error}") from None
        if address.name in {other.name for other in found}:
            raise ValueError(f"address {number}: {address.name} is there twice")
        found.append(address)
    return tuple(found)


def _read(text: str) -> Address:
    where, marked, least = text.partition("#")
    if marked and least not in LEAST:
        raise ValueError("what follows # is neither warn nor error")
    severity = cast(Severity, least or "warn")
    if where.startswith("sns:"):
        return _topic(where, severity)
    try:
        parts = urlsplit(where)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(
            "no address: its host or port cannot be read; write [ ] ? # / @ in a password as %5B ..."
        ) from None
    if parts.scheme in ("http", "https", "slack+http", "slack+https"):
        if not host:
            raise ValueError("it names no host")
        form: Form = "slack" if parts.scheme.startswith("slack+") else "webhook"
        url = where.removeprefix("slack+")
        # The path of a webhook is its secret; two of one host are told apart by its digest.
        apart = _digest(f"{parts.path}?{parts.query}")
        return Address(form, f"{form} {host}{f':{port}' if port else ''} ({apart})", severity, url=url)
    if parts.scheme in ("smtp", "smtps"):
        return _mail(where, severity)
    raise ValueError(f"it begins with none of {_KNOWN}")


def _topic(where: str, severity: Severity) -> Address:
    arn = where.removeprefix("sns:")
    if not re.fullmatch(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[\w-]+(\.fifo)?", arn):
        raise ValueError("no topic's ARN, such as sns:arn:aws:sns:eu-west-1:123456789012:alerts")
    return Address("sns", f"sns {arn.rsplit(':', 1)[1]} ({_digest(arn)})", severity, url=arn)


def _mail(where: str, severity: Severity) -> Address:
    parts = urlsplit(where)
    form: Form = "smtp" if parts.scheme == "smtp" else "smtps"
    if not parts.hostname:
        raise ValueError("it names no host")
    asked = parse_qs(parts.query)
    if set(asked) - {"from", "to"}:
        raise ValueError("behind ? are from=a@b&to=c@d, and nothing else")
    sender, to = ",".join(asked.get("from", ())), ",".join(asked.get("to", ())).split(",")
    if not _MAIL.fullmatch(sender) or not all(_MAIL.fullmatch(each) for each in to):
        raise ValueError("mail needs ?from=a@b&to=c@d, with commas between several receivers")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if bool(user) != bool(password):
        raise ValueError("a login is user:password@, or nothing")
    port = parts.port or (465 if form == "smtps" else 587 if user else 25)
    name = f"{form} {parts.hostname}:{port} ({_digest(','.join([sender, *sorted(to)]))})"
    return Address(
        form, name, severity, host=parts.hostname, port=port, user=user, password=password, sender=sender, to=tuple(to)
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]
