"""A Pipeline's parts as one ONNX graph that computes what scikit-learn computes, operation by operation.

Inputs `numbers` (double, null as NaN) and `texts` (string), each of shape (rows, features of the kind) where there are
any; outputs `raw` (double, shape (rows, raw scores), before the link) and `prepared` (double, shape (rows, prepared
columns), as scaler and encoder give them). The link to probabilities, and which class wins, are left to
`serving.graph`: an exponential that differs in the last bit turns ties between classes. The graph's metadata says which
features it takes and which link it needs: see `serving.graph.Reads`.
"""

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ml_assets.deployment.parts import Boosting, Forest, Linear, Numbers, Parts, Texts, Tree
from ml_assets.serving.graph import METADATA, NUMBERS, PREPARED, RAW, TEXTS, Reads

OPSETS = {"": 21, "ai.onnx.ml": 5}
IR_VERSION = 10
LARGEST_FLOAT32 = 2.0**128 - 2.0**103  # from here on the nearest float32 is infinite, which scikit-learn refuses


def graph_of(parts: Parts) -> bytes:
    """The content of `model.onnx`."""
    writer = _Writer()
    blocks = [writer.numbers(each) if isinstance(each, Numbers) else writer.texts(each) for each in parts.blocks]
    writer.add("Concat", blocks, PREPARED, axis=1)
    if isinstance(parts.estimator, Forest):
        writer.forest(parts.estimator)
    elif isinstance(parts.estimator, Boosting):
        writer.boosting(parts.estimator)
    else:
        writer.linear(parts.estimator)
    reads = Reads(
        numbers=parts.numbers,
        texts=parts.texts,
        prepared=parts.prepared,
        link="identity" if isinstance(parts.estimator, Forest) else parts.estimator.link,
        missing=parts.missing,
        largest=LARGEST_FLOAT32 if isinstance(parts.estimator, Forest) else None,
    )
    content: bytes = writer.model(reads).SerializeToString(deterministic=True)
    return content


class _Writer:
    """Collects the nodes and constants of a graph."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def add(self, operator: str, inputs: list[str], output: str = "", domain: str = "", **attributes: Any) -> str:
        """Append a node; its output's name."""
        output = output or f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], domain=domain, **attributes))
        return output

    def constant(self, value: np.ndarray | float | int | list[int]) -> str:
        """A constant's name."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def numbers(self, block: Numbers) -> str:
        values = NUMBERS
        if block.fill is not None:
            values = self.add("Where", [self.add("IsNaN", [values]), self.constant(block.fill), values])
        if block.mean is not None:
            values = self.add("Sub", [values, self.constant(block.mean)])
        if block.scale is not None:
            values = self.add("Div", [values, self.constant(block.scale)])  # as a product it differs in the last bit
        return values

    def texts(self, block: Texts) -> str:
        """Each text beside each of its column's categories; a text that equals none is 0 everywhere."""
        column = np.repeat(np.arange(len(block.columns)), [len(some) for some in block.categories])
        categories = np.array([each for some in block.categories for each in some], dtype=object)
        beside = self.add("Gather", [TEXTS, self.constant(column)], axis=1)
        equal = self.add("Equal", [beside, self.constant(categories)])
        return self.add("Cast", [equal], to=TensorProto.DOUBLE)

    def forest(self, forest: Forest) -> None:
        """Trees compare the float32 of what they are given with their float64 thresholds.

        The operator has one number per leaf, and classes need several: so each tree gives the position of its leaf in
        a table, and `CumSum` adds the rows of the table up in the order of the trees, which no other sum promises.
        """
        single = self.add("Cast", [PREPARED], to=TensorProto.FLOAT)
        values = self.add("Cast", [single], to=TensorProto.DOUBLE)
        size = self.constant(float(len(forest.trees)))
        if forest.trees[0].value.shape[1] == 1:
            total = self.trees(values, forest.trees, [each.value[:, 0] for each in forest.trees], [0])
        else:
            leaves, found = [], 0
            for tree in forest.trees:
                leaves.append(np.cumsum(tree.leaf) - 1.0 + found)
                found += int(tree.leaf.sum())
            position = self.trees(values, forest.trees, leaves, list(range(len(forest.trees))))
            table = self.constant(np.vstack([each.value[each.leaf] for each in forest.trees]))
            votes = self.add("Gather", [table, self.add("Cast", [position], to=TensorProto.INT64)], axis=0)
            sums = self.add("CumSum", [votes, self.constant(1)])
            total = self.add("Gather", [sums, self.constant(len(forest.trees) - 1)], axis=1)
        self.add("Div", [total, size], RAW)

    def boosting(self, boosting: Boosting) -> None:
        """The baseline comes first in the sum, as in scikit-learn: as trees of one leaf."""
        first = [_one_leaf(each) for each in boosting.baseline]
        trees = [*first, *boosting.trees]
        targets = [*range(len(first)), *boosting.targets]
        self.trees(PREPARED, trees, [each.value[:, 0] for each in trees], targets, RAW)

    def linear(self, linear: Linear) -> None:
        product = self.add("MatMul", [PREPARED, self.constant(linear.coefficients)])
        self.add("Add", [product, self.constant(linear.intercept)], RAW)

    def trees(
        self, values: str, trees: list[Tree], leaves: list[np.ndarray], targets: list[int], output: str = ""
    ) -> str:
        """Sums of the trees' leaves, shape (rows, targets).

        Args:
            leaves: for each tree an array of shape (nodes,) with a number for each leaf.
            targets: for each tree where its leaf is added to; one for all of them is enough.
        """
        targets = targets * len(trees) if len(targets) == 1 else targets
        inner: dict[str, list[np.ndarray]] = {name: [] for name in ("feature", "threshold", "missing")}
        branches: dict[str, list[np.ndarray]] = {name: [] for name in ("left", "left_leaf", "right", "right_leaf")}
        weights, where, roots = [], [], []
        nodes = ends = 0
        for tree, leaf, target in zip(trees, leaves, targets, strict=True):
            split = ~tree.leaf
            number = np.where(tree.leaf, np.cumsum(tree.leaf) - 1 + ends, np.cumsum(split) - 1 + nodes)
            roots.append(nodes)
            weights.append(leaf[tree.leaf])
            where.append(np.full(len(weights[-1]), target))
            if tree.leaf[0]:  # the operator knows no tree without a split: both branches end in the same leaf
                left = right = np.zeros(1, np.int64)
                parts = np.zeros(1, np.int64), np.zeros(1), np.zeros(1, bool)
            else:
                left, right = tree.left[split], tree.right[split]
                parts = tree.feature[split], tree.threshold[split], tree.missing_left[split]
            for name, part in zip(inner, parts, strict=True):
                inner[name].append(part)
            for name, branch in (("left", left), ("right", right)):
                branches[name].append(number[branch])
                branches[f"{name}_leaf"].append(tree.leaf[branch])
            nodes += len(left)
            ends += len(weights[-1])
        split_values = np.concatenate(inner["threshold"]).astype(np.float64)
        return self.add(
            "TreeEnsemble",
            [values],
            output,
            domain="ai.onnx.ml",
            n_targets=max(targets) + 1,
            aggregate_function=1,  # the sum
            post_transform=0,
            tree_roots=roots,
            nodes_featureids=_integers(inner["feature"]),
            nodes_splits=numpy_helper.from_array(split_values),
            nodes_modes=numpy_helper.from_array(np.zeros(nodes, np.uint8)),  # at most the threshold: left, or "true"
            nodes_missing_value_tracks_true=_integers(inner["missing"]),
            nodes_truenodeids=_integers(branches["left"]),
            nodes_trueleafs=_integers(branches["left_leaf"]),
            nodes_falsenodeids=_integers(branches["right"]),
            nodes_falseleafs=_integers(branches["right_leaf"]),
            leaf_targetids=_integers(where),
            leaf_weights=numpy_helper.from_array(np.concatenate(weights).astype(np.float64)),
        )

    def model(self, reads: Reads) -> ModelProto:
        kinds = {NUMBERS: TensorProto.DOUBLE, TEXTS: TensorProto.STRING}
        widths = {NUMBERS: len(reads.numbers), TEXTS: len(reads.texts)}
        inputs = [
            helper.make_tensor_value_info(name, kind, ["rows", widths[name]])
            for name, kind in kinds.items()
            if widths[name]
        ]
        outputs = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["rows", None]) for name in (RAW, PREPARED)]
        graph = helper.make_graph(self.nodes, "model", inputs, outputs, self.constants)
        opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="ml-assets")
        helper.set_model_props(model, {METADATA: reads.to_json()})
        return model


def _one_leaf(value: float) -> Tree:
    no, zero = np.zeros(1, bool), np.zeros(1, np.int64)
    return Tree(~no, zero, np.zeros(1), zero, zero, no, np.full((1, 1), value))


def _integers(parts: list[np.ndarray]) -> list[int]:
    return [int(each) for each in np.concatenate(parts).tolist()]
