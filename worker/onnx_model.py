"""ONNX files as models: a graph behind the methods of an estimator. Reading one runs no code of its maker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from shared.signature import Label

_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}
#: Attributes of a graph's nodes in which converters write the classes.
_CLASS_ATTRIBUTES = ("classlabels_strings", "classlabels_int64s", "classlabels_ints", "cats_strings", "cats_int64s")


class WrongGraph(ValueError):
    """A graph is no classifier or regressor as converters of scikit-learn models make them; the message says why."""


class OnnxModel(BaseEstimator):  # type: ignore[misc]
    """A graph that reads one matrix, or one column an input, and answers a row a row.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
    """

    def __init__(self, session: Any) -> None:
        self.session = session
        self._inputs = [(node.name, _find_type(node), node.shape) for node in session.get_inputs()]
        if len(self._inputs) > 1:
            self.feature_names_in_ = np.array([name for name, _, _ in self._inputs], dtype=object)
            self.n_features_in_ = len(self._inputs)
        elif isinstance(width := (self._inputs[0][2] or [None])[-1], int):
            self.n_features_in_ = width

    def _run(self, rows: Any, outputs: Sequence[str]) -> list[Any]:
        if len(self._inputs) == 1:
            name, kind, _ = self._inputs[0]
            feed = {name: np.ascontiguousarray(rows, dtype=kind)}
        else:
            feed = {name: np.asarray(rows[name], dtype=kind).reshape(-1, 1) for name, kind, _ in self._inputs}
        answers: list[Any] = self.session.run(list(outputs), feed)
        return answers


class OnnxRegressor(RegressorMixin, OnnxModel):  # type: ignore[misc]
    """A graph whose first output is the answer."""

    def predict(self, rows: Any) -> npt.NDArray[Any]:
        """Answer each row with a number."""
        answers = np.asarray(self._run(rows, [self.session.get_outputs()[0].name])[0], dtype=np.float64)
        return answers.reshape(len(answers)) if answers.size == len(answers) else answers


class OnnxClassifier(ClassifierMixin, OnnxModel):  # type: ignore[misc]
    """A graph that answers with a label and, as its second output, with probabilities.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
    classes : sequence of str, int, float or bool
        In the order of the probabilities.
    """

    def __init__(self, session: Any, classes: Sequence[Label]) -> None:
        super().__init__(session)
        self.classes = classes
        self.classes_ = np.array(classes)
        self._labels, self._probabilities = [node.name for node in session.get_outputs()][:2]

    def predict(self, rows: Any) -> npt.NDArray[Any]:
        """Answer each row with a label."""
        return np.asarray(self._run(rows, [self._labels])[0]).reshape(-1).astype(self.classes_.dtype, copy=False)

    def predict_proba(self, rows: Any) -> npt.NDArray[np.float64]:
        """Answer each row with a probability for each class."""
        answers = self._run(rows, [self._probabilities])[0]
        if isinstance(answers, list):  # a mapping a row (ZipMap)
            answers = [[row[label] for label in self.classes] for row in answers]
        return np.asarray(answers, dtype=np.float64)


def open_onnx(content: bytes, classes: Sequence[Label] | None) -> OnnxModel:
    """Open a graph.

    Parameters
    ----------
    content : bytes
        Of an ONNX file that holds all of its weights.
    classes : sequence or None
        In the order of the probabilities; None for a regressor.

    Raises
    ------
    WrongGraph
        It is none that answers a row a row.
    Exception
        ONNX Runtime cannot open it.
    """
    import onnxruntime  # half a second, and only such models need it

    options = onnxruntime.SessionOptions()
    # N processes on N cores must not fight; and no thread is to spin while it waits.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return OnnxRegressor(session) if classes is None else OnnxClassifier(session, classes)


def read_labels(content: bytes) -> tuple[Label, ...] | None:
    """Find the classes of a classifier in its graph; None for a regressor.

    Raises
    ------
    WrongGraph
        It is no ONNX file, or answers with labels and does not say which there are.
    """
    import onnx

    try:
        graph = onnx.load_from_string(content).graph
    except Exception as error:  # protobuf's own, of several sorts
        raise WrongGraph(f"this is no ONNX file ({type(error).__name__})") from error
    if len(graph.output) == 1:
        return None
    tables = {table.name: table for table in graph.initializer}
    for node in reversed(graph.node):  # the last one that names classes made the answer
        if found := _find_labels(node, tables):
            return tuple(value.decode() if isinstance(value, bytes) else value for value in found)
    raise WrongGraph(
        "the graph answers with labels and probabilities, and none of its nodes says which classes there are"
    )


def _find_labels(node: Any, tables: Mapping[str, Any]) -> list[Any]:
    """Return the classes that a node names, or picks its answers from; none if it does neither."""
    for attribute in node.attribute:
        if attribute.name in _CLASS_ATTRIBUTES and (found := list(attribute.strings) or list(attribute.ints)):
            return found
    if node.op_type == "ArrayFeatureExtractor" and node.input[0] in tables:
        from onnx.numpy_helper import to_array

        labels: list[Any] = to_array(tables[node.input[0]]).ravel().tolist()
        return labels
    return []


def _find_type(node: Any) -> Any:
    if node.type not in _TYPES:
        raise WrongGraph(f"the input {node.name!r} is a {node.type}; expected one of {', '.join(_TYPES)}")
    return _TYPES[node.type]
