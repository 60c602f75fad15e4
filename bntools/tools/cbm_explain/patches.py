"""Where in an image a concept is seen: its score in each patch, where patch embeddings are given."""

from __future__ import annotations

from typing import Any

import numpy as np

from bntools.core.errors import bad_input, usage
from bntools.core.methods.cbm import inputs
from bntools.core.methods.cbm.bottleneck import Bottleneck, Floats


def read_patches(path: str, row: int, grid: tuple[int, int] | None) -> tuple[Floats, tuple[int, int]]:
    """The patches [P, d] of one row, in the order of `pos`, and their grid (rows, columns).

    The file has a column doc: which row of the data a patch belongs to. Raises BnError: exit 3 without it, 2 where the
    row has no patches or they do not fill the grid.
    """
    data, columns = inputs.read_columns(path)
    if "doc" not in columns:
        raise bad_input(f"{data.label} has no column doc", "doc [patches]: the row of --data each belongs to")
    mine = np.flatnonzero(columns["doc"] == row)
    if "pos" in columns:
        mine = mine[np.argsort(columns["pos"][mine], kind="stable")]
    side = round(len(mine) ** 0.5)
    shape = grid or (side, side)
    if not len(mine) or shape[0] * shape[1] != len(mine):
        hint = f"--grid ROWSxCOLUMNS for {len(mine)}" if len(mine) else "doc counts rows of --data from 0"
        raise usage(f"{len(mine)} patches of row {row} are no grid of {shape[0]} x {shape[1]}", hint)
    return data.x[mine], shape


def concept_maps(
    model: Bottleneck, patches: Floats, grid: tuple[int, int], concepts: list[str]
) -> list[dict[str, Any]]:
    """Of each concept its standardised score in every patch, as rows of the grid, and where it peaks.

    A patch is scored as a row is, so a map is right where the encoder puts patches and rows in one space.
    """
    inputs.same_width(model.vectors.shape[1], patches.shape[1], ("the bottleneck", "the patches"))
    scores = model.concepts(patches)
    result = []
    for name in concepts:
        values = scores[:, model.names.index(name)].reshape(grid)
        peak = np.unravel_index(int(values.argmax()), grid)
        result.append({"concept": name, "peak": [int(peak[0]), int(peak[1])],
                       "map": [[round(float(v), 4) for v in line] for line in values]})  # fmt: skip
    return result
