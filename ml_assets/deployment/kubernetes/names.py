"""What the objects of a model are called, and the labels by which they are known as its own."""

import re
from typing import Any

from ml_assets.deployment.targets import Release
from ml_assets.digests import digest_of
from ml_assets.errors import TargetError

MANAGER = "ml-assets"  # field manager of all that is applied
PORT = 8080
MODEL = "ml-assets/model"
INSTANCE = "ml-assets/instance"
RELEASE = "ml-assets/release"
TRAFFIC = "ml-assets/traffic"
_MOST = 40  # of the 63 characters of a label, so that a release's name fits behind


def base_of(model: str) -> str:
    """The name of a model's objects.

    >>> base_of("late_deliveries")
    'late-deliveries'
    """
    name = model.replace("_", "-")
    if len(name) <= _MOST and not name.endswith("-"):
        return name
    return f"{name[: _MOST - 9].rstrip('-')}-{digest_of([model])[:8]}"


def labels_of(base: str, release: Release | None = None) -> dict[str, str]:
    """Labels of a model's objects, or of those of one release."""
    labels = {
        "app.kubernetes.io/name": "ml-assets-endpoint",
        "app.kubernetes.io/instance": base,
        "app.kubernetes.io/managed-by": MANAGER,
    }
    versioned = {RELEASE: release.name, "app.kubernetes.io/version": release.version} if release else {}
    return labels | selected(base) | versioned


def selected(base: str) -> dict[str, str]:
    """The one label that makes an object a model's own; operators write what they like into the usual ones."""
    return {INSTANCE: base}


def own(base: str) -> str:
    """The selector of all that is a model's own."""
    return f"{INSTANCE}={base}"


def require_own(item: dict[str, Any], base: str) -> None:
    """Let through an object of a model.

    Raises:
        TargetError: if somebody else made it.
    """
    if (item["metadata"].get("labels") or {}).get(INSTANCE) != base:
        raise TargetError(
            f"{item.get('kind', 'object')} {item['metadata']['name']} of namespace {item['metadata'].get('namespace')} "
            "was not made by ml-assets for this model; it is left alone. Take another namespace, or remove it"
        )


def require_name(release: Release) -> None:
    """Let through a release whose name can be a label.

    Raises:
        TargetError: if it cannot.
    """
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", release.name):
        raise TargetError(f"{release.name!r} is no name that Kubernetes takes; releases are called version-digest")
