"""Runs a release's ONNX graph (`deployment.graph` writes it) on features. Needs onnxruntime and no scikit-learn."""

import math
import os
import sys
from typing import Any, Literal, Self

import msgspec
import numpy as np
import polars as pl

from ml_assets.errors import InvalidRequestError, ReleaseError
from ml_assets.ml.features import FEW, MISSING

AT_ONCE = 4096  # rows of one run: a forest holds a number per row, tree and class meanwhile
NUMBERS, TEXTS, RAW, PREPARED, METADATA = "numbers", "texts", "raw", "prepared", "reads"

# From raw scores to values or probabilities.
Link = Literal["identity", "exp", "logit", "softmax"]
LARGEST_EXPONENT = math.log(sys.float_info.max)


class Reads(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a graph takes.

    Attributes:
        numbers, texts: features in the order of the columns of the inputs.
        prepared: for each column of the output `prepared` the feature that it is made of.
        link: what makes scores of raw scores.
        missing: whether a prepared value may be NaN.
        largest: a prepared value must be smaller than this, and greater than its negative; None: finite.
    """

    numbers: list[str]
    texts: list[str]
    prepared: list[str]
    link: Link
    missing: bool
    largest: float | None

    def to_json(self) -> str:
        return msgspec.json.encode(self).decode()


class Graph:
    """A loaded graph, which several threads may use at once."""

    def __init__(self, session: Any, reads: Reads) -> None:
        self._session = session
        self.reads = reads

    @classmethod
    def load(cls, content: bytes) -> Self:
        """Make a graph ready to run.

        Raises:
            ReleaseError: if it is no graph of ours.
        """
        # Otherwise the import alone keeps an id of this machine in the home folder, and sends events to its makers.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # As it is written: an optimiser that drops the cast to float32 sends rows to another leaf.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            reads = msgspec.json.decode(session.get_modelmeta().custom_metadata_map[METADATA], type=Reads)
        except Exception as error:
            raise ReleaseError(f"the graph of the release cannot be read: {error}; build the release again") from None
        return cls(session, reads)

    def scores(self, features: pl.DataFrame) -> np.ndarray:
        """Probabilities of shape (rows, classes), or values of shape (rows,) for regression.

        Raises:
            InvalidRequestError: naming row and feature, if scikit-learn would refuse the row: a number that is too
                large, or missing where the model takes none.
        """
        raw, prepared = self._run(features, [RAW, PREPARED])
        self._require_finite(prepared, features)
        return _linked(raw, self.reads.link)

    def scores_of(self, numbers: np.ndarray, texts: np.ndarray) -> np.ndarray | None:
        """The same for features as they are given to the graph, null numbers as NaN and null texts as their category.

        Args:
            numbers, texts: shape (rows, features of that kind), in the order of `reads`.

        Returns:
            None if scikit-learn would refuse a row.
        """
        given = {name: values for name, values in ((NUMBERS, numbers), (TEXTS, texts)) if values.shape[1]}
        raw, prepared = self._session.run([RAW, PREPARED], given)
        return None if self._refused(prepared).any() else _linked(raw, self.reads.link)

    def prepared(self, features: pl.DataFrame) -> np.ndarray:
        """What imputer, scaler and encoder make of the features, shape (rows, prepared columns)."""
        [prepared] = self._run(features, [PREPARED])
        return prepared

    def _run(self, features: pl.DataFrame, outputs: list[str]) -> list[np.ndarray]:
        if features.height <= AT_ONCE:
            ran: list[np.ndarray] = self._session.run(outputs, self._inputs(features))
            return ran
        parts = [self._session.run(outputs, self._inputs(some)) for some in features.iter_slices(AT_ONCE)]
        return [np.concatenate(each) for each in zip(*parts, strict=True)]

    def _inputs(self, features: pl.DataFrame) -> dict[str, np.ndarray]:
        """The features as the graph takes them: null numbers as NaN, null texts as their category."""
        numbers, texts = self.reads.numbers, self.reads.texts
        if features.height <= FEW:
            rows = [dict(zip(features.columns, row, strict=True)) for row in features.rows()]
            given = {
                NUMBERS: np.array([[row[name] for name in numbers] for row in rows], dtype=np.float64),
                TEXTS: np.array(
                    [[MISSING if row[name] is None else row[name] for name in texts] for row in rows], dtype=object
                ),
            }
        else:
            given = {
                NUMBERS: np.empty((features.height, len(numbers))),
                TEXTS: np.empty((features.height, len(texts)), dtype=object),
            }
            for column, name in enumerate(numbers):
                given[NUMBERS][:, column] = features.get_column(name).to_numpy()
            for column, name in enumerate(texts):
                given[TEXTS][:, column] = features.get_column(name).fill_null(MISSING).to_list()
        return {name: values for name, values in given.items() if values.shape[1]}

    def _refused(self, prepared: np.ndarray) -> np.ndarray:
        """Which prepared values scikit-learn refuses, shape (rows, prepared columns)."""
        sizes = np.abs(prepared)
        largest = np.inf if self.reads.largest is None else self.reads.largest
        return np.asarray(sizes >= largest if self.reads.missing else ~(sizes < largest))

    def _require_finite(self, prepared: np.ndarray, features: pl.DataFrame) -> None:
        refused = self._refused(prepared)
        if not refused.any():
            return
        row, column = (int(each) for each in np.argwhere(refused)[0])
        name = self.reads.prepared[column]
        value = features.get_column(name)[row]
        if value is None:
            raise InvalidRequestError(f"row {row}: feature {name!r} is null, and the model takes no missing values")
        raise InvalidRequestError(f"row {row}: feature {name!r} is {value!r}, which is too large for the model")


def _linked(raw: np.ndarray, link: Link) -> np.ndarray:
    """Probabilities of shape (rows, classes), or values of shape (rows,), with scikit-learn's own operations."""
    if link == "logit":  # scipy's expit takes the C library's exponential, as `math` does and numpy does not
        positive = np.array([_expit(each) for each in raw[:, 0].tolist()])
        return np.stack([1 - positive, positive], axis=1)
    if link == "softmax":
        shares = np.exp(raw - raw.max(axis=1, keepdims=True))
        # In the order of the classes, whatever their number: `sum` takes another one from eight on, for one row alone.
        return np.asarray(shares / np.cumsum(shares, axis=1)[:, -1:])
    values = np.exp(raw) if link == "exp" else raw
    return values[:, 0] if values.shape[1] == 1 else values


def _expit(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if -value < LARGEST_EXPONENT else 0.0
