"""Layers of a stack aimed at what the coded layers before them give: better there, and resumed to the same bytes."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from support.stacked import call

from bntools.core.blockwise.windows import text_windows
from bntools.core.errors import USAGE
from bntools.core.model.open import open_model
from bntools.core.work.array_store import Shelf
from bntools.tools.stack_compress import build, compensated, encode
from bntools.tools.stack_compress.build import Settings
from bntools.tools.stack_compress.encode import Recipe
from bntools.tools.stack_compress.network import Network
from bntools.tools.stack_compress.order import greedy

RECIPE = Recipe(3)


@contextlib.contextmanager
def quiet(*_):
    yield lambda count: None


@pytest.fixture(scope="module")
def model():
    return open_model("default:")


@pytest.fixture(scope="module")
def windows(model):
    return text_windows(model, "default", 8192, 256)


@pytest.fixture(scope="module")
def ready(model, windows):
    """Moments on a shelf, the names, the constant."""
    shelf = Shelf(None)
    names = build.prepare(model, windows, Settings(), shelf, "cpu", quiet)
    return shelf, names, build.solve(model, shelf, names, 2.25, RECIPE, quiet)


class Above(Shelf):
    """A shelf of one's own over another one's moments."""

    def __init__(self, below: Shelf) -> None:
        super().__init__(None)
        self.below, self.puts = below, 0

    def put(self, name, arrays):
        self.puts += 1
        super().put(name, arrays)

    def get(self, name):
        return super().get(name) if super().has(name) else self.below.get(name)


def made(model, windows, ready, compensate: bool, shelf=None):
    below, names, alpha = ready
    shelf = shelf or Above(below)
    if compensate:
        compensated.compensate(model, shelf, names, alpha, RECIPE, windows, "cpu", quiet)
    return build.build(model, shelf, names, alpha, RECIPE, quiet), shelf


def same(a, b):
    assert list(a.specs) == list(b.specs)
    for name in a.specs:
        assert np.array_equal(a.bits(name), b.bits(name)), name
        assert np.array_equal(a.coded(name).levels, b.coded(name).levels), name


@pytest.mark.slow
def test_at_the_sizes_that_layers_are_aimed_at_less_is_lost(model, windows, ready):
    stacks = [made(model, windows, ready, flag)[0] for flag in (False, True)]
    held_out = text_windows(model, "default", 40_960, 256)[1::5][:16]  # no window of those it is made on
    lost = []
    for one in stacks:
        network = Network(one, held_out, "cpu")
        for planes in range(4):
            network.place({name: {(block.plane, block.band): block.nbytes for block in one.blocks
                                  if block.name == name and block.plane <= planes} for name in one.specs})  # fmt: skip
            lost.append(network.kl())
    plain, aimed = np.reshape(lost, (2, 4))
    assert aimed[0] < 0.95 * plain[0], (plain, aimed)
    assert aimed[1] < 0.93 * plain[1], (plain, aimed)
    assert (
        aimed[2:] < 1.25 * plain[2:]
    ).all()  # the price: cells of the base lie a little beside the weights
    assert len(greedy(stacks[1].blocks, lambda block: block.gain)) == len(stacks[1].blocks)


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_layers(model, windows, ready, monkeypatch):
    whole, _ = made(model, windows, ready, True)
    shelf = Above(ready[0])

    begin = encode.begin

    def stop(*args):
        if shelf.puts > 40:
            raise KeyboardInterrupt
        return begin(*args)

    monkeypatch.setattr(compensated.encode, "begin", stop)
    with pytest.raises(KeyboardInterrupt):
        made(model, windows, ready, True, shelf)
    monkeypatch.undo()
    assert any(shelf.has(f"layers {name}") for name in ready[1])
    assert not any(shelf.has(f"planes {name}") for name in ready[1])
    same(made(model, windows, ready, True, shelf)[0], whole)


@pytest.mark.slow
def test_layers_do_not_depend_on_the_number_of_threads(model, windows, ready):
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(made(model, windows[:8], ready, True)[0])
    finally:
        torch.set_num_threads(threads)
    same(*found)


def test_a_part_is_made_without(tmp_path):
    words = ("stack-compress", "default:", "-o", tmp_path / "x", "--compensate")
    assert "--no-compensate" in call(*words, "--shard", "0/2", code=USAGE).hint
    assert "planes" in call(*words, "--codec", "bitstack", code=USAGE).what
