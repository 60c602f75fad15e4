"""The path as an artifact of kind `sparse-path`."""

from __future__ import annotations

import json

import numpy as np

from bntools.core.artifact.writer import Writer
from bntools.tools.sparse_fit.design import Design
from bntools.tools.sparse_fit.fit import Fit

KIND = "sparse-path"


def write(out: Writer, design: Design, fit: Fit) -> None:
    """Tensors float64: lambda [k], coefficients [k, p] and intercepts [k] in the table's units, ebic and
    held_out_loss [k].

    Names of the columns stand in the side file columns.json.
    """
    coefficients = fit.path.coefficients / design.spreads
    arrays = {
        "lambda": fit.path.lambdas,
        "coefficients": coefficients,
        "intercepts": fit.path.intercepts - coefficients @ design.means,
        "ebic": fit.bic,
        "held_out_loss": fit.validation.mean,
    }
    for name, array in arrays.items():
        out.add_raw(name, "F64", array.shape, np.ascontiguousarray(array, np.float64).data.cast("B"))
    out.files["columns.json"] = json.dumps(design.names).encode()
