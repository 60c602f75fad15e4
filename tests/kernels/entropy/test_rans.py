"""The rANS coder against its spelled-out form, its tables, and its rate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import slow_entropy

from bntools.kernels.entropy import dependent_trellis, rans

QUICK = settings(max_examples=30, deadline=None)


def lane(seed: int, cols: int, rows: int, sets: int, scale: float, wild: bool):
    """Levels [cols, rows] of a lane, the classes, the table of each level, and frequencies that hold them all."""
    rng = np.random.default_rng(seed)
    levels = np.rint(rng.laplace(0, scale, (cols, rows))).clip(-32767, 32767).astype(np.int16)
    if wild:
        flat = levels.reshape(-1)
        flat[rng.integers(0, flat.size, 4)] = [-32767, 32767, 128, -128]
    classes = rng.integers(-5, 70, rows).astype(np.int16), rng.integers(-70, 70, cols).astype(np.int16)
    tables = np.empty(levels.shape, np.uint8)
    rans.table_indices(levels, *classes, sets, dependent_trellis.MACHINE, tables)
    frequencies = rans.normalize(rans.count(levels, tables, rans.CLASSES * sets))
    return levels, classes, tables, frequencies


def decode(words, classes, sets, frequencies, shape) -> tuple[bool, np.ndarray]:
    levels = np.zeros(shape, np.int16)
    packed, symbols = rans.cumulative(frequencies), rans.slots(frequencies)
    good = rans.decode_lane(words, *classes, sets, packed, symbols, dependent_trellis.MACHINE, levels)
    return good, levels


LANES = {
    "seed": st.integers(0, 2**32 - 1),
    "cols": st.integers(1, 9),
    "rows": st.integers(1, 40),
    "sets": st.sampled_from([1, 2]),
    "scale": st.sampled_from([0.0, 0.3, 2.0, 60.0, 9000.0]),
    "wild": st.booleans(),
}


@QUICK
@given(**LANES)
@example(seed=0, cols=1, rows=1, sets=2, scale=0.0, wild=True)
def test_levels_come_back_from_the_words_the_slow_coder_writes(seed, cols, rows, sets, scale, wild):
    levels, classes, tables, frequencies = lane(seed, cols, rows, sets, scale, wild)
    lists = frequencies.tolist()
    chosen = [
        slow_entropy.table(int(classes[0][row]), int(classes[1][col]), state, sets)
        for col, line in enumerate(levels.tolist())
        for row, state in enumerate(states(line))
    ]
    assert chosen == tables.reshape(-1).tolist()
    flat = levels.reshape(-1).tolist()
    wanted = slow_entropy.encode(
        [
            pair
            for level, at in zip(flat, chosen, strict=True)
            for pair in slow_entropy.pairs(level, lists[at])
        ]
    )
    words = rans.encode_lane(levels, tables, rans.cumulative(frequencies))
    assert words.tolist() == wanted
    good, found = decode(words, classes, sets, frequencies, levels.shape)
    assert good
    assert np.array_equal(found, levels)

    def read_table(done: list[int]) -> list[int]:
        col, row = divmod(len(done), rows)
        state = states([*done[col * rows :], 0])[-1]
        return lists[slow_entropy.table(int(classes[0][row]), int(classes[1][col]), state, sets)]

    assert slow_entropy.decode(wanted, len(flat), read_table) == flat


def states(levels: list[int]) -> list[int]:
    """The machine's state before each level of a column."""
    found = [0]
    for level in levels[:-1]:
        found.append(slow_entropy.NEXT[found[-1]][level % 2])
    return found


@QUICK
@given(
    st.lists(
        st.lists(st.sampled_from([0, 0, 0, 1, 7, 10**3, 10**9]), min_size=256, max_size=256),
        min_size=1, max_size=4,
    )
)  # fmt: skip
def test_every_table_sums_to_its_denominator_and_holds_what_occurs(counts):
    frequencies = rans.normalize(np.array(counts))
    assert (frequencies.sum(1, dtype=np.int64) == rans.TOTAL).all()
    assert (frequencies[np.array(counts) > 0] > 0).all()
    assert (frequencies[:, rans.ESCAPE] > 0).all()
    assert (rans.slots(frequencies) == [np.repeat(np.arange(256), row) for row in frequencies]).all()


@pytest.mark.parametrize("scale", [0.4, 3.0, 70.0])
@pytest.mark.parametrize("sets", [1, 2])
def test_the_bits_promised_are_the_bits_written(scale, sets):
    levels, _, tables, frequencies = lane(1, 200, 1000, sets, scale, True)
    promised = rans.cost_bits(frequencies, rans.count(levels, tables, len(frequencies)))
    written = 16 * len(rans.encode_lane(levels, tables, rans.cumulative(frequencies)))
    assert abs(written / promised - 1) < 0.002


def test_the_tables_waste_less_than_a_thousandth_of_the_entropy():
    levels, _, tables, frequencies = lane(2, 1000, 1000, 1, 3.0, False)
    counts = rans.count(levels, tables, len(frequencies)).astype(float)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    entropy = -(counts * np.log2(np.where(counts > 0, share, 1))).sum()
    assert entropy <= rans.cost_bits(frequencies, counts.astype(np.int64)) < 1.001 * entropy


def test_a_symbol_its_table_lacks_is_not_written_as_another():
    """It is written out after an escape: tables that know nothing else still give every level back."""
    levels, classes, tables, _ = lane(3, 2, 8, 1, 2.0, False)
    nothing = rans.normalize(np.zeros((64, 256), np.int64))
    words = rans.encode_lane(levels, tables, rans.cumulative(nothing))
    good, back = decode(words, classes, 1, nothing, levels.shape)
    assert good
    assert np.array_equal(back, levels)


@QUICK
@given(
    **LANES,
    words=st.lists(st.one_of(st.integers(0, 65535), st.sampled_from([0, 65535])), max_size=60),
)
def test_words_no_encoder_wrote_end_in_a_refusal(seed, cols, rows, sets, scale, wild, words):
    """A state of 32 bits and a final check of it: one in 2^32 random streams of the right length passes."""
    levels, classes, tables, frequencies = lane(seed, cols, rows, sets, scale, wild)
    true = rans.encode_lane(levels, tables, rans.cumulative(frequencies)).tolist()
    good, _ = decode(np.array(words, np.uint16), classes, sets, frequencies, levels.shape)
    assert not good or words == true


@QUICK
@given(**LANES, cut=st.integers(1, 1000), more=st.integers(0, 65535))
def test_a_lane_cut_short_or_with_a_word_too_many_is_refused(seed, cols, rows, sets, scale, wild, cut, more):
    levels, classes, tables, frequencies = lane(seed, cols, rows, sets, scale, wild)
    words = rans.encode_lane(levels, tables, rans.cumulative(frequencies))
    for damaged in (words[: max(len(words) - cut, 0)], np.append(words, np.uint16(more))):
        assert not decode(damaged, classes, sets, frequencies, levels.shape)[0]
