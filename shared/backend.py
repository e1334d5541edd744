"""How a model version is run: the backend that registration chose for it, and what it measured."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

#: Name of the graph's file beside the model file.
GRAPH_FILE = "backend.onnx"


class Speed(msgspec.Struct, frozen=True):
    """What registration measured with calls of so many rows; for information, since machines differ.

    Parameters
    ----------
    rows : int
        Rows of one call.
    estimator : float
        Rows a second of the estimator's own `predict_proba` (or `predict`).
    converted : float or None
        Rows a second of what the model was converted to; None where there is no such thing.
    """

    rows: int
    estimator: float
    converted: float | None = None


class GraphFile(msgspec.Struct, frozen=True):
    """The ONNX graph beside the model file: derived from it, and checked against it.

    Parameters
    ----------
    part : {"trees", "whole"}
        Of what it is the graph: of the trees at the model's end, or of the whole model.
    file : str
    sha256 : str
    size : int
        Bytes.
    """

    part: Literal["trees", "whole"]

    file: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, msgspec.Meta(ge=0)]


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    """The one way in which all rows of a version are run.

    Parameters
    ----------
    name : {"scikit-learn", "direct", "onnx"}
        ``scikit-learn``: the estimator itself. ``direct``: its own arithmetic, without its checks and copies.
        ``onnx``: a graph in ONNX Runtime.
    reason : str
        Why this one, for people.
    exact : bool
        Whether its answers were the estimator's bit for bit on all rows that were tried.
    tolerance : float
        Relative difference that was allowed.
    checked_rows : int
        Rows that were tried: the sample, points between and around its rows.
    graph : GraphFile or None
    graph_rows : int or None
        Of an exact graph: rows of a call up to which it is the faster. Larger calls are run by the estimator's own
        trees, whose answers are the same bits. None: all calls.
    measured : tuple of Speed
    """

    name: Literal["scikit-learn", "direct", "onnx"] = "scikit-learn"
    reason: str = "it was registered without a comparison of backends"
    exact: bool = True
    tolerance: float = 0.0
    checked_rows: int = 0
    graph: GraphFile | None = None
    graph_rows: int | None = None
    measured: tuple[Speed, ...] = ()
