"""`ml-assets alerts`: what is open and what waits for its channel, for people; and a test of the channels."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ml_assets.alerts.channels import send
from ml_assets.alerts.message import Message
from ml_assets.alerts.outbox import Outbox
from ml_assets.errors import AlertError
from ml_assets.lake import Lake
from ml_assets.settings import Settings


def alerts_of(settings: Settings) -> dict[str, Any]:
    """Open alerts, and for each channel what it was not sent yet and why."""
    known = Outbox(Lake(settings.lake)).known()
    channels = []
    for address in settings.channels:
        channel, pending = known.channels.get(address.name), known.pending(address)
        again = channel.again() if channel else None
        channels.append(
            {
                "name": address.name,
                "least": address.least,
                "waiting": [each.subject for each in pending],
                "error": channel.error if channel else "",
                "again": again.isoformat() if again else None,
            }
        )
    opened = [
        {
            "id": each.id,
            "model": each.last.model,
            "kind": each.last.kind,
            "severity": each.severity,
            "title": each.last.title,
            "text": each.last.text,
            "url": each.last.url,
            "opened": each.opened.isoformat(),
        }
        for each in known.open()
    ]
    return {"open": opened, "channels": channels}


def tell_alerts(said: dict[str, Any], tell: Callable[[str], None]) -> None:
    """What `alerts_of` gave, for people."""
    for each in said["open"]:
        tell(f"{each['severity']:<5} since {each['opened'][:19]}  {each['title']}")
        tell(f"      {each['url']}")
    if not said["open"]:
        tell("No alert is open.")
    for each in said["channels"]:
        waiting = len(each["waiting"])
        wrong = f": {each['error']}" if each["error"] else ""
        again = f"; tried again at {each['again'][11:19]} UTC" if each["again"] else ""
        state = f"{waiting} message(s) wait{wrong}{again}" if waiting else "all is delivered"
        tell(f"{each['name']} (from {each['least']} on): {state}")
    if not said["channels"]:
        tell("No channel is set: ML_ASSETS_ALERTS says where alerts go, see README.md.")


def try_channels(settings: Settings, tell: Callable[[str], None]) -> bool:
    """Send each channel a message, now; whether all took it."""
    now = datetime.now(UTC)
    name = f"test-{now:%Y%m%d%H%M%S}"
    message = Message(
        id=f"{name}-1",
        alert=name,
        event="test",
        model="-",
        kind="test",
        severity="warn",
        title="a test of this channel by `ml-assets alerts --test`",
        text="Alerts of ml-assets will arrive here.",
        url=settings.ui,
        since=None,
        at=now,
    )
    good = True
    for address in settings.channels:
        try:
            remark = send(address, message, settings.s3_endpoint_url)
            tell(f"{address.name}: sent{remark and f', but {remark}'}")
        except AlertError as error:
            good = False
            tell(f"{error}")
    if not settings.channels:
        tell("No channel is set: ML_ASSETS_ALERTS says where alerts go, see README.md.")
    return good
