"""A whole fitted model as one ONNX graph, by skl2onnx, in double precision as far as its operators go."""

from __future__ import annotations

from typing import Any

import numpy as np

from worker.tree_ensembles import NotConvertible

_OPSETS = {"": 21, "ai.onnx.ml": 3}


def convert_whole(estimator: Any, columns: int) -> bytes:
    """Convert a fitted estimator that reads an array of numbers.

    A classifier's graph has two outputs, labels and probabilities (or scores, if it gives none); a regressor's one.

    Raises
    ------
    NotConvertible
        skl2onnx cannot; that is normal for many kinds.
    """
    import skl2onnx  # seconds, and only for a model that nothing else converts

    # Without it probabilities come as one dictionary a row. Some kinds give none and do not know the option.
    no_dictionaries = {id(estimator): {"zipmap": False}}
    rows = np.zeros((1, columns))
    try:
        try:
            model = skl2onnx.to_onnx(estimator, rows, options=no_dictionaries, target_opset=_OPSETS)
        except NameError:
            model = skl2onnx.to_onnx(estimator, rows, target_opset=_OPSETS)
        content: bytes = model.SerializeToString()
    except Exception as error:  # its converters, one for each kind, raise whatever they come upon
        raise NotConvertible(f"skl2onnx cannot convert it ({type(error).__name__})") from error
    return content
