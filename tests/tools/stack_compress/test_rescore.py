"""The order by gains that the gradient of the divergence finds at a few sizes."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from bntools.core.blockwise.windows import text_windows
from bntools.core.model.open import open_model
from bntools.core.work.array_store import Shelf
from bntools.tools.stack_compress import build
from bntools.tools.stack_compress.encode import Recipe
from bntools.tools.stack_compress.network import Network, bytes_of
from bntools.tools.stack_compress.order import greedy
from bntools.tools.stack_compress.rescore import rescored

PLANES = 2


@contextlib.contextmanager
def quiet(*_):
    yield lambda count: None


@pytest.fixture(scope="module")
def windows():
    return text_windows(open_model("default:"), "default", 2048, 256)


@pytest.fixture(scope="module")
def stacks(windows):
    model, shelf, recipe = open_model("default:"), Shelf(None), Recipe(PLANES)
    names = build.prepare(model, windows, build.Settings(planes=PLANES), shelf, "cpu", quiet)
    alpha = build.solve(model, shelf, names, 2.25, recipe, quiet)
    return build.build(model, shelf, names, alpha, recipe, quiet)


def test_the_gradients_are_those_of_the_mean_divergence_at_the_weights(stacks, windows):
    """Through every layer and, as the head is tied, both uses of the embedding."""
    network = Network(stacks, windows[:3], "cpu")
    network.place({name: {} for name in stacks.specs})
    found = network.gradients()
    model = stacks.model.build(torch.float32)
    with torch.no_grad():
        truth = stacks.model.build(torch.float32)(windows[:3]).logits.log_softmax(-1)
        for name in stacks.specs:
            model.get_parameter(name).copy_(stacks.dense(name, {}))
    ours = model(windows[:3]).logits.log_softmax(-1)
    ((truth.exp() * (truth - ours)).sum() / windows[:3].numel()).backward()
    for name in stacks.specs:
        expected = model.get_parameter(name).grad
        assert float((found[name] - expected).norm() / expected.norm()) < 1e-4, name


def test_gradients_do_not_depend_on_the_number_of_threads(stacks, windows):
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            network = Network(stacks, windows[:4], "cpu")
            network.place({name: {} for name in stacks.specs})
            found.append(network.gradients())
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0][name], found[1][name]) for name in stacks.specs)


def test_every_block_comes_once_and_after_the_one_below_it(stacks, windows):
    found = rescored(stacks, windows[:2], 3, "cpu", quiet)
    assert sorted(map(id, found)) == sorted(map(id, stacks.blocks))
    above = {}
    for block in found:
        assert block.plane == above.get((block.name, block.band), 0) + 1
        above[block.name, block.band] = block.plane


def test_a_gain_that_was_predicted_wrong_is_put_right(stacks, windows):
    """Predictions three times too high or too low for every other matrix: found by the gradient, a better model."""
    wrong = replace(
        stacks,
        blocks=[
            replace(block, gain=block.gain * (3.0 if block.index % 2 else 1 / 3)) for block in stacks.blocks
        ],
    )
    network, total = Network(stacks, windows, "cpu"), sum(block.nbytes for block in stacks.blocks)
    lost = []
    orders = greedy(wrong.blocks, lambda block: block.gain), rescored(wrong, windows[::2], 4, "cpu", quiet)
    for blocks in orders:
        for share in (0.15, 0.25, 0.65):
            network.place(bytes_of(blocks, stacks.specs, int(share * total)))
            lost.append(network.kl())
    before, after = np.reshape(lost, (2, 3))
    assert (after < before).all()
    assert after.prod() ** (1 / 3) < 0.9 * before.prod() ** (1 / 3)
