"""The format of stacks: rows count when all of them is there, specs and curves no writer wrote are refused."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from bntools.core.artifact import header, reader
from bntools.core.artifact.header import Entry
from bntools.core.errors import BAD_INPUT, USAGE, BnError
from bntools.core.packing import stack
from bntools.core.packing.entropy import EntropySpec as Base
from bntools.kernels.stack import weight as stack_weight

SPEC = stack.spec(Base((7, 20), "F16", False, 8, 20), planes=3, band=3, trellis=0)
LINKED = [replace(SPEC, trellis=trellis) for trellis in (0, 1, 2)]


def blocks(seed=0):
    rng = np.random.default_rng(seed)
    return {
        stack.block_name("w", plane, band): rng.integers(0, 256, (len(SPEC.band_rows(band)), 3), np.uint8)
        for plane in (1, 2, 3) for band in range(3)
    }  # fmt: skip


def test_blocks_cover_every_row_once():
    assert (SPEC.bands, SPEC.width) == (3, 3)
    assert [row for band in range(3) for row in SPEC.band_rows(band)] == list(range(7))
    assert SPEC.block_names("w") == list(blocks())


def test_a_row_counts_when_all_of_it_and_every_plane_below_it_are_there():
    there = {name: value.tobytes() for name, value in blocks().items()}
    there[stack.block_name("w", 2, 0)] = there[stack.block_name("w", 2, 0)][:7]  # two rows and a byte
    del there[stack.block_name("w", 1, 1)]
    found = stack.Planes.read("w", SPEC, lambda name: there.get(name, b""))
    assert found.depth.tolist() == [3, 3, 1, 0, 0, 0, 3]
    assert found.limited(2).depth.tolist() == [2, 2, 1, 0, 0, 0, 2]
    close = found.compact()
    assert len(close.bits) == found.depth.sum()
    for planes in (found, close):
        second = [planes.bits[planes.first[row] + planes.stride] for row in (0, 1)]
        assert np.array_equal(second, blocks()[stack.block_name("w", 2, 0)][:2])
        assert np.array_equal(planes.bits[planes.first[6]], blocks()[stack.block_name("w", 1, 2)][0])


def written(there: Mapping[str, bytes], trellis: int, row: int, planes: int) -> np.ndarray:
    """What so many planes add to the weights of a row, from what a block's bits say: see kernels.linked."""
    band, own = divmod(row, SPEC.band)
    found = np.zeros(SPEC.cols)
    for plane in range(1, planes + 1):
        block = there[stack.block_name("w", plane, band)]
        for col in range(SPEC.cols):

            def u(k: int, block: bytes = block, col: int = col) -> int:
                return block[k * SPEC.width + col // 8] >> col % 8 & 1 if k >= 0 else 0

            if plane <= trellis:
                high, low = u(own) ^ u(own - 2), u(own - 1)
                found[col] += (high - 0.5) / 2**plane + (low - 0.5) / 2 ** (plane + 1)
            else:
                found[col] += (u(own) - 0.5) / 2**plane
    return found


def added(found: stack.Planes, row: int) -> np.ndarray:
    """The same from lines in memory."""
    weights = stack_weight.line_weights(int(found.depth[row]), found.trellis)
    lines = [found.bits[found.first[row] + at * found.stride] for at in range(len(weights))]
    bits = [np.unpackbits(line, bitorder="little")[: SPEC.cols] - 0.5 for line in lines]
    return sum((weight * line for weight, line in zip(weights, bits, strict=True)), np.zeros(SPEC.cols))


@pytest.mark.parametrize("spec", LINKED)
@pytest.mark.parametrize("plane", [1, 2, 3])
@pytest.mark.parametrize("size", [0, 2, 3, 7, 9])
def test_planes_in_memory_are_those_of_the_formula_wherever_a_block_is_cut(spec, plane, size):
    there = {name: value.tobytes() for name, value in blocks().items()}
    cut = stack.block_name("w", plane, 1)
    there[cut] = there[cut][:size]
    whole = size // 3
    depth = [3, 3, 3, *(3 if row < whole else plane - 1 for row in range(3)), 3]
    found = stack.Planes.read("w", spec, lambda name: there[name])
    for most in range(4):
        some = found.limited(most)
        assert some.depth.tolist() == np.minimum(depth, most).tolist()
        close = some.compact()
        assert len(close.bits) == sum(
            len(stack_weight.line_weights(int(n), spec.trellis)) for n in some.depth
        )
        for row in range(spec.rows):
            wanted = written(there, spec.trellis, row, min(depth[row], most))
            assert np.array_equal(added(some, row), wanted)
            assert np.array_equal(added(close, row), wanted)


@pytest.mark.parametrize("spec", LINKED[1:])
def test_a_band_does_not_depend_on_the_one_before(spec):
    """Any order of blocks, and bands made apart from each other, give the same weights."""
    there = {name: value.tobytes() for name, value in blocks().items()}
    other = {name: value.tobytes() for name, value in blocks(1).items()}
    mixed = {name: (other if name.endswith("/1") else there)[name] for name in there}
    first, second = (stack.Planes.read("w", spec, lambda name, d=data: d[name]) for data in (there, mixed))
    same = [np.array_equal(added(first, row), added(second, row)) for row in range(7)]
    assert same == [True, True, True, False, False, False, True]
    for row in (0, 3, 6):  # no bits before the first row of a band
        assert not second.bits[second.first[row] + second.stride].any()


def test_a_block_of_too_many_rows_is_refused():
    with pytest.raises(BnError, match="4 rows, not 3") as caught:
        stack.Planes.read("w", SPEC, lambda name: bytes(12))
    assert caught.value.code == BAD_INPUT


@pytest.mark.parametrize("spec", [*LINKED, replace(SPEC, planes=0), replace(SPEC, planes=7, trellis=2)])
def test_a_spec_comes_back_from_json(spec):
    assert stack.parse("w", json.loads(json.dumps(spec.as_json()))) == spec
    assert SPEC.as_json()["code"] == "planes"


@pytest.mark.parametrize(
    "change",
    [
        {"planes": 8}, {"planes": -1}, {"planes": "x"}, {"band": 0}, {"band": 8}, {"lane": 0}, {"trellis": 3},
        {"trellis": -1}, {"trellis": "x"}, {"trellis": None}, {"trellis": 2, "planes": 1},
    ],
)  # fmt: skip
def test_a_spec_no_writer_wrote_is_refused_by_name(change):
    changed = [{**SPEC.as_json(), **change}]
    if set(change) != {"trellis"}:  # which may be missing, for 0
        changed.append({k: v for k, v in SPEC.as_json().items() if k not in change})
    for bad in changed:
        with pytest.raises(BnError, match=r"model\.w") as caught:
            stack.parse("model.w", bad)
        assert caught.value.code == BAD_INPUT


def test_a_spec_without_a_trellis_has_plain_planes():
    told = {key: value for key, value in SPEC.as_json().items() if key != "trellis"}
    assert stack.parse("w", told).trellis == 0


def test_rows_of_small_scale_come_first_and_ties_in_their_order():
    assert stack.row_order(np.array([3, -1, 3, -5, -1], np.int16)).tolist() == [3, 1, 4, 0, 2]


def small(tmp_path, metadata=None, kind="stack"):
    """A file of a base of 10 bytes and two blocks of 6."""
    names = ["a", f"{header.BLOCK_PREFIX}w/1/0", f"{header.BLOCK_PREFIX}w/2/0"]
    bounds = [(0, 10), (10, 16), (16, 22)]
    entries = [Entry(name, "U8", (b - a,), a, b) for name, (a, b) in zip(names, bounds, strict=True)]
    told = {"bntools.kind": kind, **(metadata or {})}
    path = tmp_path / "s.safetensors"
    path.write_bytes(header.encode(told, entries) + bytes(range(22)))
    return path, entries


def test_a_stack_may_end_anywhere_behind_its_base_and_nothing_else_may(tmp_path):
    path, _ = small(tmp_path)
    data = path.read_bytes()
    base = len(data) - 12
    for size in range(base - 2, len(data) + 2):
        cut = tmp_path / "cut.safetensors"
        cut.write_bytes((data + b"xx")[:size])
        if not base <= size <= len(data):
            with pytest.raises(
                BnError, match="trailing" if size > base else f"smallest prefix has {base:,} bytes"
            ) as caught:
                reader.open_path(cut)
            assert caught.value.code == BAD_INPUT
            continue
        with reader.open_path(cut) as found, reader.open_path(path, min(size, len(data))) as read:
            assert found.nbytes == read.nbytes == size
            assert list(found.entries) == list(read.entries)
            for name in found.entries:
                assert found.part(name) == read.part(name)
                assert found.part_bytes(name) == len(found.part(name))
            assert sum(map(found.part_bytes, found.entries)) == size - found.header.size
            assert found.sha256() == read.sha256()
    plain, _ = small(tmp_path, kind="model")
    plain.write_bytes(plain.read_bytes()[:-1])
    with pytest.raises(BnError, match="truncated"):
        reader.open_path(plain)


def test_a_budget_for_what_is_no_stack_is_refused(tmp_path):
    path, _ = small(tmp_path, kind="model")
    with pytest.raises(BnError, match="stacks") as caught:
        reader.open_path(path, 1000)
    assert caught.value.code == USAGE


def curve(tmp_path, points):
    path, _ = small(tmp_path, {"bntools.stack": json.dumps({"curve": points})})
    return stack.Curve(reader.open_path(path))


def test_between_its_points_a_curve_is_straight_on_a_logarithmic_axis(tmp_path):
    found = curve(tmp_path, [[0, 0.4], [100, 0.1], [200, 0.05]])
    base = found.points[0][0]
    assert found.expected(base - 1) is None
    assert found.expected(base) == pytest.approx(0.4)
    assert found.expected(base + 50) == pytest.approx(math.sqrt(0.4 * 0.1))
    assert found.expected(base + 999) == 0.05
    assert curve(tmp_path, []).expected(10**9) is None


@pytest.mark.parametrize("points", [[1, 2], [["a", 1]], [[1, None]], [[1, 2, 3]]])
def test_a_damaged_curve_is_refused(tmp_path, points):
    with pytest.raises(BnError, match="curve") as caught:
        curve(tmp_path, points)
    assert caught.value.code == BAD_INPUT
