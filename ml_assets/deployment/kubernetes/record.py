"""What was brought about last for a model, kept in the annotations of the object that directs its traffic.

It is written when the cluster has done what it says, in one piece, and so is what tells a rollout that is half done
from one that is: who crashes before it is written does it all again.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Self

from ml_assets.deployment.kubernetes.counts import Counted
from ml_assets.errors import TargetError

_PREFIX = "ml-assets/"


@dataclass(frozen=True)
class Record:
    """Who serves a model.

    Attributes:
        weight: the challenger's share that was asked for and brought about, in percent.
        replicas: of both sides together during a rollout; 0: not decided yet.
        since: when this step began.
        counted: what each pod had counted then, by uid.
    """

    stable: str | None = None
    challenger: str | None = None
    weight: int = 0
    shadow: bool = False
    replicas: int = 0
    since: datetime | None = None
    counted: Mapping[str, Any] = field(default_factory=dict)

    def to_annotations(self) -> dict[str, str]:
        return {
            f"{_PREFIX}stable": self.stable or "",
            f"{_PREFIX}challenger": self.challenger or "",
            f"{_PREFIX}weight": str(self.weight),
            f"{_PREFIX}shadow": json.dumps(self.shadow),
            f"{_PREFIX}replicas": str(self.replicas),
            f"{_PREFIX}since": self.since.isoformat() if self.since else "",
            f"{_PREFIX}counted": json.dumps(self.counted, separators=(",", ":")),
        }

    @classmethod
    def of(cls, item: dict[str, Any] | None) -> Self:
        """The record of an object; that of an object without one, or of none, says that nothing serves.

        Raises:
            TargetError: if somebody has changed it into what it cannot say.
        """
        found = (item or {}).get("metadata", {}).get("annotations") or {}
        said = {name.removeprefix(_PREFIX): value for name, value in found.items() if name.startswith(_PREFIX)}
        if "stable" not in said:
            return cls()
        try:
            return cls(
                said["stable"] or None,
                said["challenger"] or None,
                int(said["weight"]),
                bool(json.loads(said["shadow"])),
                int(said["replicas"]),
                datetime.fromisoformat(said["since"]) if said["since"] else None,
                json.loads(said["counted"]),
            )
        except (KeyError, ValueError) as error:
            assert item is not None
            raise TargetError(
                f"the annotations {_PREFIX}* of {item['kind']} {item['metadata']['name']} are not as ml-assets wrote "
                f"them ({error}); remove them all, and the rollout is begun anew"
            ) from None

    def step(self, counted: Iterable[Counted], since: datetime, **changes: Any) -> Self:
        """The record of a step that begins."""
        before = {each.pod: each.to_json() for each in counted}
        return replace(self, since=since, counted=before, **changes)
