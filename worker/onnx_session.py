"""ONNX Runtime: a graph's bytes to something that can be called; the one place that knows how it is set."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

Array = npt.NDArray[Any]


class GraphRefused(ValueError):
    """ONNX Runtime cannot run the graph; the message is its own first line."""


class OnnxGraph:
    """A graph with one input, ready to run.

    Parameters
    ----------
    content : bytes
    output : int
        Which of its outputs is the answer.

    Raises
    ------
    GraphRefused
        It is none that can be run here.
    """

    def __init__(self, content: bytes, output: int = 0) -> None:
        try:
            self._session = onnxruntime.InferenceSession(content, _make_options(), providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common base but this
            reason = str(error).strip().partition("\n")[0][:300]
            raise GraphRefused(f"ONNX Runtime refuses the graph ({reason})") from error
        self._input = self._session.get_inputs()[0].name
        self._outputs = [self._session.get_outputs()[output].name]

    def run(self, rows: Array) -> Array:
        """Run rows of the input's type through the graph.

        Parameters
        ----------
        rows : ndarray, shape (n_rows, n_columns)
        """
        return np.asarray(self._session.run(self._outputs, {self._input: rows})[0])


def _make_options() -> Any:
    options = onnxruntime.SessionOptions()
    # N processes on N cores: each one thread, and none that spins while it waits.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # errors come as exceptions
    return options
