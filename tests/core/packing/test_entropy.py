"""Entropy-coded weights: bytes and back, the same on any number of threads, and damage found by name."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.entropy_samples import equal, sample

from bntools.core.errors import BAD_INPUT, BnError
from bntools.core.packing import entropy
from bntools.core.packing.entropy import Decoder
from bntools.kernels.entropy import rans

QUICK = settings(max_examples=25, deadline=None)


def repaired(body: bytes | bytearray) -> bytes:
    """The body with a checksum that holds."""
    return bytes(body) + struct.pack("<I", zlib.crc32(body))


def refused(work: Callable[[], Any]) -> str:
    with pytest.raises(BnError) as caught:
        work()
    assert caught.value.code == BAD_INPUT
    return caught.value.what


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@QUICK
@given(
    rows=st.integers(1, 40), cols=st.integers(1, 40), trellis=st.booleans(), seed=st.integers(0, 999),
    transposed=st.booleans(), lane=st.integers(1, 12),
)  # fmt: skip
def test_what_is_coded_comes_back(rows, cols, trellis, seed, transposed, lane):
    coded, spec, tables = sample(rows, cols, trellis, seed, transposed, lane)
    stream = entropy.encode(coded, spec, tables)
    assert stream == entropy.encode(coded, spec, tables)
    decoder = Decoder(entropy.dump_tables(tables))
    assert equal(decoder.coded("w", spec, stream), coded)
    assert entropy.parse("w", spec.as_json()) == spec
    back = decoder.tables
    assert entropy.dump_tables(back) == entropy.dump_tables(tables)
    assert (back.frequencies().sum(1, dtype=int) == 1 << 14).all()


@pytest.mark.parametrize("trellis", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_threads_and_the_cut_into_lanes_change_no_bit_of_the_weights(threads, trellis, transposed):
    found = []
    for lane, count in ((1, 1), (1, 2), (7, 2), (1000, 1)):
        threads(count)
        coded, spec, tables = sample(60, 90, trellis, 3, transposed, lane)
        decoder = Decoder(entropy.dump_tables(tables))
        stream = entropy.encode(coded, spec, tables)
        found.append(decoder.dense("w", spec, stream, torch.float32))
        whole = entropy.values(decoder.coded("w", spec, stream), tables, spec.octave)
        assert torch.equal(found[-1], torch.from_numpy(whole if transposed else whole.T))
        half = decoder.dense("w", spec, stream, torch.float16)
        assert torch.equal(half, found[-1].half())
    assert all(torch.equal(one, found[0]) for one in found)


def test_a_weight_is_its_level_times_the_steps_of_its_row_and_column_and_the_shrink_of_its_class():
    coded, spec, tables = sample(20, 30, False, 5)
    wanted = coded.levels * 2.0 ** ((coded.row_scale + coded.col_scale[:, None]) / spec.octave)
    wanted *= tables.shrink[np.clip(coded.row_class + coded.col_class[:, None], 0, 63)]
    assert np.allclose(entropy.values(coded, tables, spec.octave), wanted, rtol=1e-6)


def test_the_bits_counted_are_the_bytes_written():
    coded, spec, tables = sample(1000, 800, True)
    counter = entropy.Counter(True)
    counter.add(coded)
    written = 8 * len(entropy.encode(coded, spec, tables))
    assert abs(written / counter.bits() - 1) < 0.002


@pytest.mark.parametrize("trellis", [False, True])
def test_a_damaged_byte_anywhere_is_found_and_named(trellis):
    coded, spec, tables = sample(6, 9, trellis, lane=4)
    dumped, stream = entropy.dump_tables(tables), entropy.encode(coded, spec, tables)
    decoder = Decoder(dumped)
    for at in range(len(stream)):
        damaged = bytearray(stream)
        damaged[at] ^= 1 + at % 255
        assert "model.w" in refused(lambda bad=damaged: decoder.coded("model.w", spec, bad))
        assert "model.w" in refused(lambda bad=damaged: decoder.dense("model.w", spec, bad, torch.float16))
    for at in range(len(dumped)):
        damaged = bytearray(dumped)
        damaged[at] ^= 1 + at % 255
        assert "tables" in refused(lambda bad=damaged: Decoder(bytes(bad)))


def test_a_truncated_stream_or_table_is_refused_whatever_its_checksum_says():
    coded, spec, tables = sample(6, 9, True, lane=4)
    dumped, stream = entropy.dump_tables(tables), entropy.encode(coded, spec, tables)
    decoder = Decoder(dumped)
    for size in range(len(stream)):
        for bad in (stream[:size], repaired(stream[: min(size, len(stream) - 5)])):
            assert "model.w" in refused(lambda bad=bad: decoder.coded("model.w", spec, bad))
    for size in range(len(dumped)):
        for bad in (dumped[:size], repaired(dumped[: min(size, len(dumped) - 5)])):
            refused(lambda bad=bad: Decoder(bad))


@QUICK
@given(data=st.data(), trellis=st.booleans())
def test_garbage_under_a_true_checksum_ends_in_an_error_or_in_weights_of_the_right_shape(data, trellis):
    """A forged checksum is no damage, so levels may differ; sizes and memory may not."""
    coded, spec, tables = sample(6, 9, trellis, lane=4)
    dumped, stream = entropy.dump_tables(tables), entropy.encode(coded, spec, tables)
    for body, is_stream in ((bytearray(stream[:-4]), True), (bytearray(dumped[:-4]), False)):
        for _ in range(data.draw(st.integers(1, 4))):
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
        if data.draw(st.booleans()):
            body = body + bytes(data.draw(st.integers(0, 300)))
        try:
            decoder = Decoder(dumped if is_stream else repaired(body))
            found = decoder.dense("w", spec, repaired(body) if is_stream else stream, torch.float32)
        except BnError as error:
            failed = error.code
        else:
            failed = None
            assert found.shape == (6, 9)
            assert torch.isfinite(found).all()
        assert failed in (None, BAD_INPUT)


def test_a_few_bytes_that_claim_a_huge_matrix_are_refused_before_memory_is_asked_for():
    coded, spec, tables = sample(6, 9, True)
    decoder, stream = Decoder(entropy.dump_tables(tables)), entropy.encode(coded, spec, tables)
    for shape, lane in (((1 << 40, 9), 9), ((6, 1 << 40), 1 << 40), ((1 << 31, 1 << 31), 1), ((6, 10), 10)):
        huge = replace(spec, shape=shape, lane=lane)
        refused(lambda bad=huge: decoder.dense("w", bad, stream, torch.float32))


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [6]}, {"shape": [6, 0]}, {"shape": "6"}, {"shape": None}, {"dtype": "U8"}, {"octave": 0},
        {"octave": "x"}, {"lane": 0}, {"lane": 10}, {"shape": [2, 3, 9]}, {"octave": 5000},
    ],
)  # fmt: skip
def test_a_spec_no_writer_of_ours_wrote_is_refused_by_name(change):
    good = sample(6, 9, True)[1].as_json()
    assert "model.w" in refused(lambda: entropy.parse("model.w", {**good, **change}))
    for key in set(good) - {"code"}:
        without = {k: v for k, v in good.items() if k != key}
        assert "model.w" in refused(lambda bad=without: entropy.parse("model.w", bad))


@pytest.mark.parametrize(("row", "col"), [(127 * 8 + 1, -900), (-127 * 8 - 1, 0), (500, 500)])
def test_scales_beyond_float32_are_refused(row, col):
    coded, spec, _ = sample(6, 9, False)
    coded.row_scale[2], coded.col_scale[5] = row, col
    counter = entropy.Counter(False)
    counter.add(coded)
    tables = counter.tables(np.ones(64, np.float32))
    decoder = Decoder(entropy.dump_tables(tables))
    assert "scales" in refused(lambda: decoder.coded("w", spec, entropy.encode(coded, spec, tables)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
def test_shrinks_that_would_make_no_weights_are_refused(value):
    tables = sample(6, 9, False)[2]
    tables.shrink[7] = value
    refused(lambda: Decoder(entropy.dump_tables(tables)))


@pytest.mark.parametrize("trellis", [False, True])
def test_what_classes_take_adds_up_to_what_is_counted(trellis):
    """The size of a model is foretold by it; a class that was never met takes what its neighbours take."""
    coded, *_ = sample(60, 80, trellis)
    counter = entropy.Counter(trellis)
    counter.add(coded)
    a_weight = counter.class_bits()
    index = np.clip(coded.row_class[None].astype(int) + coded.col_class[:, None], 0, rans.CLASSES - 1)
    seen = np.bincount(index.ravel(), minlength=rans.CLASSES)
    sides = sum(rans.cost_bits(rans.normalize(row[None]), row[None]) for row in counter.sides)
    assert seen @ a_weight + sides == pytest.approx(counter.bits(), rel=1e-6)
    missing = np.flatnonzero(seen == 0)
    assert len(missing)
    assert np.isfinite(a_weight[missing]).all()
    assert a_weight[missing].min() >= a_weight[seen > 0].min()
