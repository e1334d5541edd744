"""An ensemble of trees as an ONNX graph, in double precision and in the order of the estimator's own additions.

skl2onnx rounds thresholds and values of leaves to single precision, which moves rows to other leaves; so the graph is
written here, with one operator: TreeEnsemble of ``ai.onnx.ml`` 5. Of that a leaf has one value. Trees whose leaves have
one for each class answer with the number of the leaf, and the values are added by numpy (`add_leaves`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from worker.tree_ensembles import Array, Nodes, NotConvertible, Numbers, TreeEnsemble

#: Nodes of all trees together: beyond it writing the graph takes minutes, and its file hundreds of megabytes.
MAX_NODES = 4_000_000

_OPSETS = (helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 5))
_IR_VERSION = 10


def write_tree_graph(ensemble: TreeEnsemble, columns: int) -> bytes:
    """Write the graph: rows of float64 in, sums by target or leaves by tree out, of float64 as well.

    Raises
    ------
    NotConvertible
        There are too many nodes.
    """
    nodes = ensemble.nodes
    if len(nodes) > MAX_NODES:
        raise NotConvertible(f"its trees have {len(nodes):,} nodes; at most {MAX_NODES:,} are converted")
    trees = len(nodes.roots)
    if has_leaf_vectors(ensemble):
        leaves = np.flatnonzero(nodes.left < 0)
        tree_of_leaf = np.searchsorted(nodes.roots, leaves, side="right") - 1
        operator = _make_operator(nodes, np.arange(len(leaves), dtype=np.float64), tree_of_leaf, trees)
        width = trees
    else:
        stumped, targets = _put_base_first(ensemble)
        leaves = np.flatnonzero(stumped.left < 0)
        target_of_leaf = targets[np.searchsorted(stumped.roots, leaves, side="right") - 1]
        width = len(ensemble.base)
        operator = _make_operator(stumped, stumped.value[leaves, 0], target_of_leaf, width)
    graph = helper.make_graph(
        [operator],
        "trees",
        [helper.make_tensor_value_info("rows", TensorProto.DOUBLE, [None, columns])],
        [helper.make_tensor_value_info("answers", TensorProto.DOUBLE, [None, width])],
    )
    model = helper.make_model(graph, opset_imports=_OPSETS, ir_version=_IR_VERSION, producer_name="scorequeue")
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def has_leaf_vectors(ensemble: TreeEnsemble) -> bool:
    """Tell whether leaves have one value for each target, so that the graph answers with leaves."""
    return bool(ensemble.nodes.value.shape[1] > 1)


def _put_base_first(ensemble: TreeEnsemble) -> tuple[Nodes, Array]:
    """Put a tree of one leaf for each target in front: additions begin with the base, as the estimator's do."""
    nodes, width = ensemble.nodes, len(ensemble.base)
    if not ensemble.base.any():
        return nodes, ensemble.targets
    nowhere = np.full(width, -1)

    def behind(children: Array) -> Array:
        return np.concatenate([nowhere, np.where(children < 0, -1, children + width)])

    stumped = Nodes(
        behind(nodes.left),
        behind(nodes.right),
        np.concatenate([np.zeros(width, dtype=np.int64), nodes.feature]),
        np.concatenate([np.zeros(width), nodes.threshold]),
        np.concatenate([np.zeros(width, dtype=bool), nodes.missing_left]),
        np.concatenate([ensemble.base[:, None], nodes.value]),
        np.concatenate([np.arange(width), nodes.roots + width]),
    )
    return stumped, np.concatenate([np.arange(width), ensemble.targets])


def _make_operator(nodes: Nodes, weights: Numbers, targets: Array, width: int) -> Any:
    leaf = nodes.left < 0
    # A tree that is one leaf needs an inner node all the same, both of whose ways lead to that leaf.
    alone = np.zeros(len(nodes), dtype=bool)
    alone[nodes.roots] = leaf[nodes.roots]
    inner = np.flatnonzero(~leaf | alone)
    number_of_inner = np.cumsum(~leaf | alone) - 1
    number_of_leaf = np.cumsum(leaf) - 1
    left = np.where(alone, np.arange(len(nodes)), nodes.left)[inner]
    right = np.where(alone, np.arange(len(nodes)), nodes.right)[inner]

    def lead(children: Array) -> list[int]:
        numbers: list[int] = np.where(leaf[children], number_of_leaf[children], number_of_inner[children]).tolist()
        return numbers

    return helper.make_node(
        "TreeEnsemble",
        ["rows"],
        ["answers"],
        domain="ai.onnx.ml",
        aggregate_function=1,  # sum
        post_transform=0,  # none
        n_targets=width,
        tree_roots=number_of_inner[nodes.roots].tolist(),
        nodes_modes=numpy_helper.from_array(np.zeros(len(inner), dtype=np.uint8), "modes"),  # value <= split
        nodes_featureids=np.maximum(nodes.feature[inner], 0).tolist(),
        nodes_splits=numpy_helper.from_array(np.where(leaf, 0.0, nodes.threshold)[inner], "splits"),
        nodes_missing_value_tracks_true=nodes.missing_left[inner].astype(int).tolist(),
        nodes_truenodeids=lead(left),
        nodes_trueleafs=leaf[left].astype(int).tolist(),
        nodes_falsenodeids=lead(right),
        nodes_falseleafs=leaf[right].astype(int).tolist(),
        leaf_weights=numpy_helper.from_array(np.ascontiguousarray(weights), "weights"),
        leaf_targetids=targets.tolist(),
    )
