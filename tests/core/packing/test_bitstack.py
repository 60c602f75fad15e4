"""The format of levels of signs and factors: every byte helps, specs and levels no writer wrote are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from bntools.core.errors import BAD_INPUT, BnError
from bntools.core.packing import bitstack, stack
from bntools.kernels.stack import absolute_binary

SPEC = bitstack.BitstackSpec((24, 37), "F16", False, 3, 4, False)


@pytest.fixture(scope="module")
def weight():
    torch.manual_seed(0)
    return torch.randn(SPEC.shape) * (torch.rand(SPEC.cols) + 0.2)


@pytest.fixture(scope="module")
def parts(weight):
    found = []
    for level in absolute_binary.decompose(weight, SPEC.rank, SPEC.levels):
        bits = np.packbits(level.positive.numpy(), axis=1, bitorder="little")
        found.append(bitstack.dump(bits, level.left.numpy(), level.right.numpy()))
    return dict(zip(["w.level", *SPEC.block_names("w")], found, strict=True))


def error(weight, parts):
    found = torch.from_numpy(bitstack.values("w", SPEC, lambda name: parts.get(name, b"")))
    return float((weight - found).norm())


def test_names_and_sizes(parts):
    assert SPEC.part_names("w") == ["w.level"]
    assert SPEC.block_names("w") == [stack.block_name("w", 2, 0), stack.block_name("w", 3, 0)]
    assert {len(data) for data in parts.values()} == {SPEC.level_bytes}
    assert SPEC.level_bytes == 24 * 5 + 2 * 4 * (24 + 37)


def test_every_number_of_a_level_makes_the_weight_better(weight, parts):
    """Signs alone change nothing; then each factor of a row helps, but for what float16 rounds."""
    second = stack.block_name("w", 2, 0)
    signs, before = SPEC.rows * SPEC.width, error(weight, {"w.level": parts["w.level"]})
    assert error(weight, {"w.level": parts["w.level"], second: parts[second][: signs - 1]}) == before
    for size in range(signs, SPEC.level_bytes + 1):
        found = error(weight, {"w.level": parts["w.level"], second: parts[second][:size]})
        assert found <= before * (1 + 1e-5)
        before = found
    assert before < 0.8 * error(weight, {"w.level": parts["w.level"]})


def test_a_level_counts_when_those_before_it_are_whole(weight, parts):
    second, third = SPEC.block_names("w")
    cut = {**parts, second: parts[second][:-1]}
    without = {name: data for name, data in cut.items() if name != third}
    assert error(weight, cut) == error(weight, without)
    gone = {name: data for name, data in parts.items() if name != second}
    assert error(weight, gone) == error(weight, {"w.level": parts["w.level"]})


def test_inputs_are_scaled_and_storage_is_as_it_was(parts):
    scale = torch.rand(24).half()
    spec = bitstack.BitstackSpec((24, 37), "F16", True, 1, 4, True)
    level = next(iter(absolute_binary.decompose(torch.randn(37, 24), 4, 1)))
    bits = np.packbits(level.positive.numpy(), axis=1, bitorder="little")
    data = bitstack.dump(bits, level.left.numpy(), level.right.numpy())
    found = bitstack.dense("w", spec, lambda name: data, scale, torch.float32)
    sizes = level.left.float() @ level.right.float()
    wanted = torch.where(level.positive, sizes, -sizes) * scale.float()
    assert found.shape == (24, 37)
    assert torch.allclose(found, wanted.T, rtol=1e-5, atol=1e-6)
    for bad in (None, scale[:-1], scale * float("nan")):
        with pytest.raises(BnError, match="inputs") as caught:
            bitstack.dense("w", spec, lambda name: data, bad, torch.float32)
        assert caught.value.code == BAD_INPUT


def test_damaged_levels_are_refused_by_name(parts):
    second = stack.block_name("w", 2, 0)
    nan = parts[second][:-2] + b"\xff\xff"
    for bad in (
        {"w.level": parts["w.level"][:-1]},
        {**parts, second: parts[second] + b"x"},
        {**parts, second: nan},
    ):
        with pytest.raises(BnError, match="w") as caught:
            bitstack.values("w", SPEC, lambda name, bad=bad: bad.get(name, b""))
        assert caught.value.code == BAD_INPUT


@pytest.mark.parametrize(
    "change", [{"levels": 0}, {"levels": 65}, {"rank": 0}, {"rank": 25}, {"shape": [3]}, {"dtype": "U8"}, {"rank": "x"}]
)  # fmt: skip
def test_a_spec_comes_back_from_json_and_a_wrong_one_is_refused(change):
    assert bitstack.parse("w", json.loads(json.dumps(SPEC.as_json()))) == SPEC
    for bad in ({**SPEC.as_json(), **change}, {k: v for k, v in SPEC.as_json().items() if k not in change}):
        with pytest.raises(BnError, match=r"model\.w") as caught:
            bitstack.parse("model.w", bad)
        assert caught.value.code == BAD_INPUT
