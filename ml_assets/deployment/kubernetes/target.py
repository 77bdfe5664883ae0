"""The target of a model, by what splits the traffic in its cluster."""

from pathlib import Path

from ml_assets.deployment.kubernetes.kserve import KServeTarget
from ml_assets.deployment.kubernetes.place import KubernetesPlace
from ml_assets.deployment.kubernetes.plain import PlainTarget
from ml_assets.deployment.kubernetes.seldon import SeldonTarget
from ml_assets.deployment.targets import Target

KINDS: dict[str, type[PlainTarget] | type[SeldonTarget] | type[KServeTarget]] = {
    "plain": PlainTarget,
    "seldon": SeldonTarget,
    "kserve": KServeTarget,
}


def target_of(place: KubernetesPlace, model: str, releases: Path, key: str | None) -> Target:
    """Where a model serves in a place.

    Args:
        releases: folder of releases here, by which pods know the bytes that were approved.
        key: that the servers ask for: one of those in the place's Secret.
    """
    return KINDS[place.kind](place, model, releases, key)
