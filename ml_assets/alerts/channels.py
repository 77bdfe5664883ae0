"""How a message goes to an address: webhook, Slack's format, mail, SNS. Errors name no secret."""

import smtplib
import socket
import ssl
from datetime import UTC
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

from ml_assets.alerts.addresses import Address
from ml_assets.alerts.message import Message
from ml_assets.errors import AlertError

SECONDS = 5.0  # for each answer of a channel
MOST = 2800  # characters of a text in Slack's format, whose sections take 3,000
_MARKS = {"error": "🔴", "warn": "🟠"}


def send(address: Address, message: Message, aws_endpoint: str | None = None) -> str:
    """Send a message, once.

    Args:
        aws_endpoint: of a stand-in for AWS; None for AWS.

    Returns:
        What is to be noted about it, mostly nothing.

    Raises:
        AlertError: if it was not taken.
    """
    if address.form == "webhook":
        _post(address, json_of(message), message.id)
    elif address.form == "slack":
        _post(address, slack_of(message), message.id)
    elif address.form == "sns":
        _publish(address, message, aws_endpoint)
    else:
        return _mail(address, message)
    return ""


def json_of(message: Message) -> dict[str, Any]:
    """What a webhook gets."""
    return {
        "id": message.id,
        "alert": message.alert,
        "event": message.event,
        "status": "resolved" if message.event == "recovered" else "firing",
        "model": message.model,
        "kind": message.kind,
        "severity": message.severity,
        "title": message.title,
        "text": message.text,
        "url": message.url,
        "since": message.since.isoformat() if message.since else None,
        "at": message.at.isoformat(),
    }


def slack_of(message: Message) -> dict[str, Any]:
    """The same as Slack's incoming webhooks take it."""
    mark = "🟢" if message.event == "recovered" else _MARKS[message.severity]
    subject, text = _escaped(message.subject), _escaped(message.text)
    about = f"{message.model} · {message.kind} · {message.severity}"
    if message.since:
        about += f" · since {message.since.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return {
        "text": f"{mark} {subject}",
        "blocks": [
            {"type": "section", "text": {"type": "mrkdwn", "text": f"{mark} *<{message.url}|{subject}>*"[:MOST]}},
            {"type": "section", "text": {"type": "mrkdwn", "text": text[:MOST] or "-"}},
            {"type": "context", "elements": [{"type": "mrkdwn", "text": _escaped(about)}]},
        ],
    }


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _post(address: Address, body: dict[str, Any], name: str) -> None:
    import requests

    try:
        # Redirects would turn it into a GET. The answer's body is not read: it may never end.
        with requests.post(
            address.url,
            json=body,
            headers={"Idempotency-Key": name},
            timeout=SECONDS,
            allow_redirects=False,
            stream=True,
        ) as response:
            status = response.status_code
    except requests.Timeout:
        raise AlertError(f"{address.name} gave no answer in {SECONDS:g} s") from None
    except (requests.RequestException, OSError, ValueError) as error:  # their texts hold the address
        raise AlertError(f"{address.name} cannot be reached ({type(error).__name__})") from None
    if not 200 <= status < 300:
        raise AlertError(f"{address.name} answered {status}")


def mail_of(address: Address, message: Message) -> EmailMessage:
    """The message as a mail; those of one alert hang together."""
    mail = EmailMessage()
    mail["From"], mail["To"] = address.sender, ", ".join(address.to)
    mail["Subject"] = f"[{'ok' if message.event == 'recovered' else message.severity}] {message.subject}"
    mail["Date"] = format_datetime(message.at)
    mail["Message-ID"] = f"<{message.id}@ml-assets>"
    if message.event != "opened":
        mail["In-Reply-To"] = mail["References"] = f"<{message.alert}-1@ml-assets>"
    mail.set_content(f"{message.text}\n\n{message.url}\n")
    return mail


def _mail(address: Address, message: Message) -> str:
    context = ssl.create_default_context()
    try:
        server = (
            smtplib.SMTP_SSL(address.host, address.port, timeout=SECONDS, context=context)
            if address.form == "smtps"
            else smtplib.SMTP(address.host, address.port, timeout=SECONDS)
        )
        with server:
            if address.form == "smtp":
                server.ehlo()
                if server.has_extn("starttls"):
                    server.starttls(context=context)
                elif address.user and not _is_here(address.host):
                    raise AlertError(f"{address.name} offers no TLS, and a password is not sent without; use smtps://")
            if address.user:
                server.login(address.user, address.password)
            refused = server.send_message(mail_of(address, message), address.sender, address.to)
    except smtplib.SMTPResponseException as error:
        raise AlertError(f"{address.name} answered {error.smtp_code} ({type(error).__name__})") from None
    except TimeoutError:
        raise AlertError(f"{address.name} gave no answer in {SECONDS:g} s") from None
    except (OSError, smtplib.SMTPException, ValueError) as error:
        if "timed out" in str(error):  # smtplib calls it a server that has hung up
            raise AlertError(f"{address.name} gave no answer in {SECONDS:g} s") from None
        raise AlertError(f"{address.name} did not take it ({type(error).__name__})") from None
    # Those that took it would get it again and again, if one that never will counted as a failure.
    return f"{len(refused)} of {len(address.to)} receivers were refused" if refused else ""


def _is_here(host: str) -> bool:
    try:
        return socket.gethostbyname(host).startswith("127.")
    except OSError:
        return False


def _publish(address: Address, message: Message, endpoint: str | None) -> None:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    told = {"event": message.event, "model": message.model, "kind": message.kind, "severity": message.severity}
    subject = "".join(each if each.isascii() and each.isprintable() else "?" for each in message.subject)
    request: dict[str, Any] = {
        "TopicArn": address.url,
        "Subject": subject[:99],
        "Message": f"{message.subject}\n\n{message.text}\n\n{message.url}\n\n{message.id}",
        "MessageAttributes": {
            name: {"DataType": "String", "StringValue": value} for name, value in (told | {"id": message.id}).items()
        },
    }
    if address.url.endswith(".fifo"):
        request |= {"MessageGroupId": message.alert, "MessageDeduplicationId": message.id}
    try:
        config = Config(connect_timeout=SECONDS, read_timeout=SECONDS, retries={"total_max_attempts": 1})
        region = address.url.split(":")[3]
        client = boto3.Session().client("sns", region_name=region, endpoint_url=endpoint, config=config)
        client.publish(**request)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "an error")
        raise AlertError(f"{address.name} answered {code}") from None
    except (BotoCoreError, OSError) as error:
        raise AlertError(f"{address.name} cannot be reached ({type(error).__name__})") from None
