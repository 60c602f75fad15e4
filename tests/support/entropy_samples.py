"""A coded matrix like those of a model: levels of Laplace laws whose scales the classes follow."""

from __future__ import annotations

import numpy as np

from bntools.core.packing import entropy
from bntools.core.packing.entropy import EntropyCoded, EntropySpec, Tables


def sample(
    rows: int, cols: int, trellis: bool, seed: int = 0, transposed: bool = False, lane: int | None = None
) -> tuple[EntropyCoded, EntropySpec, Tables]:
    rng = np.random.default_rng(seed)
    row_class, col_class = rng.integers(15, 35, rows), rng.integers(-20, 20, cols)
    scale = 2.0 ** ((row_class + col_class[:, None] - 24) / 4)
    levels = np.rint(rng.laplace(0, scale)).clip(-32767, 32767)
    flat = levels.reshape(-1)
    flat[rng.integers(0, flat.size, 3)] = [-32767, 32767, 128]
    sides = rng.integers(-90, 5, rows), rng.integers(-60, 40, cols), row_class, col_class
    coded = EntropyCoded(levels.astype(np.int16), *(side.astype(np.int16) for side in sides))
    shape = (cols, rows) if transposed else (rows, cols)
    spec = entropy.spec(shape, "F16", transposed, 8)
    if lane:
        spec = EntropySpec(spec.shape, spec.dtype, transposed, spec.octave, min(lane, cols))
    counter = entropy.Counter(trellis)
    counter.add(coded)
    return coded, spec, counter.tables(np.linspace(0.5, 1, 64).astype(np.float32))


def equal(a: EntropyCoded, b: EntropyCoded) -> bool:
    kinds = ("levels", *entropy.SIDES)
    return all(np.array_equal(getattr(a, kind), getattr(b, kind)) for kind in kinds)
