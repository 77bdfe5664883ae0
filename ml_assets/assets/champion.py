"""Which version the newest one has to be compared with, as the records know it; no asset of its own.

The registry says it (alias `champion`), but what is due is decided by the records alone. So whoever asks the registry
notes what it said.
"""

from ml_assets.lake import WHOLE
from ml_assets.records import Latest, Record
from ml_assets.registry import Registry

NOTE = "registry/champion"


def rival_on_record(latest: Latest, version: str) -> str | None:
    """The version that `version` has to be compared with: the champion, or the one before it if it is the champion
    itself; so serving a version makes no new comparison due.
    """
    note = latest.get(NOTE, WHOLE)
    if note is None:
        return None
    champion: str | None = note.details["version"]
    replaced: str | None = note.details["replaced"]
    return replaced if champion == version else champion


def note_champion(registry: Registry, model: str, latest: Latest, run_id: str) -> list[Record]:
    """A record of what the registry says, if the latest one says otherwise."""
    champion = registry.champion(model)
    details = {"version": champion, "replaced": registry.replaced_by(model, champion) if champion else None}
    note = latest.get(NOTE, WHOLE)
    if details == (note.details if note else {"version": None, "replaced": None}):
        return []
    return [Record(NOTE, WHOLE, "", "", 0, run_id, details=details)]
