"""Fitted Pipelines as skops files, read with an allow-list of our own: never a pickle."""

import zipfile
from pathlib import Path
from typing import Any

from ml_assets.errors import ReleaseError

# Types beyond skops' own list that a file may name: parts of scikit-learn's trees and calibrators, which hold numbers
# and run no code on loading.
TRUSTED = (
    "numpy.dtype",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)


def untrusted_types(content: bytes) -> list[str]:
    """Types in a skops file that are not allowed."""
    import skops.io

    return sorted(set(skops.io.get_untrusted_types(data=content)) - set(TRUSTED))


def dump(pipeline: Any) -> bytes:
    """A fitted Pipeline as the content of a skops file."""
    import skops.io

    content: bytes = skops.io.dumps(pipeline)
    return content


def load(path: Path, *, to_judge: bool = False) -> Any:
    """Read a Pipeline.

    Args:
        to_judge: take any other type of scikit-learn too, so that every estimator can be judged; never to serve it.

    Raises:
        ReleaseError: if it is no skops file, such as a pickle, or names a type that is not allowed.
    """
    import skops.io

    if not path.is_file():
        raise ReleaseError(f"there is no {path}; a model is read from a skops file and from nothing else")
    content = path.read_bytes()
    try:
        others = untrusted_types(content)
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ReleaseError(f"{path} is no skops file, and nothing else is read: {error}") from None
    if refused := [each for each in others if not (to_judge and each.startswith("sklearn."))]:
        raise ReleaseError(f"{path} holds the types {', '.join(refused)}, which are not on the allow-list")
    return skops.io.loads(content, trusted=[*TRUSTED, *others])
