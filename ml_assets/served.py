"""`ml-assets served`: which release served when, and which one answered a key at a time."""

from collections.abc import Callable
from datetime import UTC, datetime

from ml_assets.lake import Lake
from ml_assets.rollouts import LakeJournal, serving_history, who_answered
from ml_assets.settings import Settings


def tell_served(
    settings: Settings, model: str, at: datetime | None, key: str | None, tell: Callable[[str], None]
) -> None:
    """Print the serving history of a model, or who answered a key.

    Args:
        at: a time in UTC; None: now.
        key: of an entity or request.
    """
    history = serving_history(LakeJournal(Lake(settings.lake), model).states())
    if key is not None:
        moment = at.replace(tzinfo=UTC) if at else datetime.now(UTC)
        found = who_answered(history, key, moment)
        said = "nobody, or one of both: this target's split does not go by keys; see the table `predictions`"
        tell(f"{model}: {key!r} at {moment:%Y-%m-%d %H:%M:%S} UTC: {found or said}")
        return
    if history.is_empty():
        tell(f"{model} has not served yet.")
    for each in history.to_dicts():
        until = f"{each['to']:%Y-%m-%d %H:%M:%S}" if each["to"] else "now"
        beside = ""
        if each["challenger"]:
            beside = f", beside it {each['challenger']} ({'shadow' if each['shadow'] else str(each['weight']) + ' %'})"
        tell(f"{each['from']:%Y-%m-%d %H:%M:%S} to {until:<19}  {each['stable'] or 'nothing'}{beside}")
