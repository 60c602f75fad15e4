"""How many distinct values each column has, from its order."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(cache=True, nogil=True)
def levels(
    columns: NDArray[Any], orders: NDArray[np.int64], valid: NDArray[np.int64], distinct: NDArray[np.int64]
) -> None:
    """valid [p]: values of each column that are no NaN; distinct [p]: different ones among them.

    columns [p, n]; orders [p, n]: ascending, NaN last.
    """
    n = columns.shape[1]
    for column in range(len(columns)):
        x, order = columns[column], orders[column]
        end = n
        while end > 0 and x[order[end - 1]] != x[order[end - 1]]:
            end -= 1
        count = 1 if end else 0
        for k in range(1, end):
            count += x[order[k]] != x[order[k - 1]]
        valid[column], distinct[column] = end, count
