"""Run by test_rans_triton.py in its own process: triton reads TRITON_INTERPRET when it is imported."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from support.entropy_samples import sample

from bntools.core.packing.entropy import EntropyCoded, Tables
from bntools.kernels.entropy import dependent_trellis, rans, rans_gpu

assert os.environ.get("TRITON_INTERPRET") == "1", "run through test_rans_triton.py"


def arguments(coded: EntropyCoded, tables: Tables, lane: int) -> tuple:
    packed = rans.cumulative(tables.frequencies())
    indices = np.empty(coded.levels.shape, np.uint8)
    rans.table_indices(
        coded.levels, coded.row_class, coded.col_class, tables.sets, dependent_trellis.MACHINE, indices
    )
    lanes = [
        rans.encode_lane(coded.levels[at : at + lane], indices[at : at + lane], packed)
        for at in range(0, len(indices), lane)
    ]
    given = (
        np.concatenate(lanes), np.array([len(words) for words in lanes]), coded.row_class, coded.col_class, lane,
        tables.sets, packed.view(np.int32), rans.slots(tables.frequencies()),
    )  # fmt: skip
    return (
        *(torch.from_numpy(x) if isinstance(x, np.ndarray) else x for x in given),
        dependent_trellis.MACHINE,
    )


@pytest.mark.parametrize("is_trellis", [False, True])
@pytest.mark.parametrize(("rows", "cols", "lane"), [(7, 75, 2), (5, 9, 9), (4, 10, 3), (1, 1, 1)])
def test_the_gpu_reads_the_levels_the_cpu_reads(is_trellis, rows, cols, lane):
    coded, _, tables = sample(rows, cols, is_trellis, seed=rows)
    given = arguments(coded, tables, lane)
    for levels, good in (rans.decode_lanes(*given), rans_gpu.decode_lanes(*given)):
        assert torch.equal(levels, torch.from_numpy(coded.levels))
        assert good.dtype == torch.bool
        assert good.all()


@pytest.mark.parametrize("is_trellis", [False, True])
def test_the_gpu_refuses_the_lanes_the_cpu_refuses(is_trellis):
    coded, _, tables = sample(6, 20, is_trellis)
    words, sizes, *rest = arguments(coded, tables, 2)
    rng = np.random.default_rng(0)
    for _ in range(3):
        flat = words.numpy().copy()
        flat[rng.integers(len(flat), size=3)] = rng.integers(0, 65536, 3)
        damaged = torch.from_numpy(flat)
        shifted = sizes.clone()
        shifted[3] -= 1
        shifted[7] += 1
        for given in ((damaged, sizes), (words, shifted)):
            levels, good = rans_gpu.decode_lanes(*given, *rest)
            wanted, sound = rans.decode_lanes(*given, *rest)
            assert torch.equal(good, sound)
            assert not good.all()
            assert torch.equal(levels.view(10, 2, 6)[good], wanted.view(10, 2, 6)[good])


def test_sizes_that_do_not_fit_the_words_are_refused():
    words, sizes, *rest = arguments(*sample(6, 20, True)[::2], 2)
    for bad in (sizes[:-1], sizes + 1):
        with pytest.raises(ValueError, match="do not make"):
            rans.decode_lanes(words, bad, *rest)
