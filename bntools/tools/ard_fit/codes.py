"""Rows to codes of the axes in use, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bntools.core.errors import bad_input
from bntools.core.methods.vae.artifact import LatentModel
from bntools.core.methods.vae.rows import RowSource

_BATCH = 4096


def pieces(model: LatentModel, rows: RowSource) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Codes [n, relevant] with the columns that the rows have beside them. BnError (exit 3) for rows not finite."""
    beside = {name: load() for name, load in rows.beside.items()}
    beside = {name: array for name, array in beside.items() if array.ndim == 1 and array.dtype.kind in "biuf"}
    for start in range(0, rows.rows, _BATCH):
        stop = min(start + _BATCH, rows.rows)
        x = rows.read(start, stop)
        finite = np.isfinite(x.reshape(len(x), -1)).all(1)
        if not finite.all():
            raise bad_input(f"{rows.label}: row {start + int(np.argmin(finite))} holds NaN or infinity")
        yield model.encode(x), {name: array[start:stop] for name, array in beside.items()}
