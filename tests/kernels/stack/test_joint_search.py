"""Levels and planes chosen together: the search equals the one that defines it, and no round makes things worse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import slow_nested as slow

from bntools.kernels.entropy import unbounded_levels
from bntools.kernels.stack import joint_search

SHAPES = [
    (1, 1),
    (5, 35),
    (60, 2),
]  # out, in: below and across the lazy blocks and what pieces begin early by
WEIGHTS = np.array([1.0, 2.5, 7.0, 8.0, 5.0], np.float32)
SCALE = 0.49


def problem(out, inner, planes, seed=0):
    """A target [in, out] for each depth, H, steps, classes and prices."""
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(size=(3 * inner + 4, inner)) @ rng.normal(size=(inner, inner))).float()
    hessian = x.T @ x / len(x) / inner + 0.05 * torch.eye(inner)
    steps = (0.5 / hessian.diagonal().sqrt()).numpy()
    w = torch.from_numpy(rng.normal(size=(inner, out)).astype(np.float32))
    targets = [
        w + 0.05 * torch.from_numpy(rng.normal(size=w.shape).astype(np.float32)) for _ in range(planes + 1)
    ]
    classes = rng.integers(10, 30, out).astype(np.int16), rng.integers(0, 12, inner).astype(np.int16)
    return targets, hessian, steps, classes, unbounded_levels.prices(0.5, 24, 4)


def factor_of(hessian):
    return torch.linalg.cholesky(torch.linalg.inv(hessian.double()), upper=True).float()


def laid(targets, classes):
    """Targets and classes of rows at their places."""
    places = joint_search.places(targets[0].shape[1])
    return [target[:, places].contiguous() for target in targets], (classes[0][places], classes[1])


def start(given):
    """Levels, codes and values by feedback, and what else a round of descent takes."""
    targets, hessian, steps, classes, price = given
    targets, classes = laid(targets, classes)
    rest = (steps, WEIGHTS[: len(targets)], SCALE, *classes, price)
    return (*joint_search.feedback(targets, [factor_of(hessian)] * len(targets), *rest), targets, rest)


def chain_of(out):
    """The place of each row of a chain, and of the rows that fill it up, which are searched like any other."""
    return joint_search.place_of(len(joint_search.places(out)))


def gradients_of(values, targets, steps, hessian):
    return [
        hessian @ (torch.from_numpy(v * steps[:, None]) - t) for v, t in zip(values, targets, strict=True)
    ]


def cost_of(chosen, want, weights, levels, prices):
    sizes = np.minimum(abs(levels), 127)
    return (weights[:, None] * (chosen - want) ** 2).sum() + prices[np.arange(len(sizes)), sizes].sum()


def prices_of(price, classes, at):
    return price[np.clip(classes[0] + classes[1][at], 0, 63)].astype(np.float64)


def test_a_chain_lies_over_the_lanes_and_is_found_again():
    for rows in (1, 15, 16, 17, 100):
        places = joint_search.places(rows)
        assert len(places) % joint_search.LANES == 0
        assert np.array_equal(places[joint_search.place_of(rows)], np.arange(rows))
        length = len(places) // joint_search.LANES
        assert np.array_equal(
            places[: joint_search.LANES], np.minimum(np.arange(joint_search.LANES) * length, rows - 1)
        )


@pytest.mark.parametrize("planes", [0, 1, 2, 4])
@pytest.mark.parametrize(("out", "inner"), SHAPES)
def test_an_input_is_chosen_as_the_best_chain_of_its_rows(out, inner, planes):
    """Up to the rounding of float32: what is chosen costs no more than the best there is."""
    _, hessian, steps, _, price = given = problem(out, inner, planes)
    levels, codes, values, targets, rest = start(given)
    place, factor, classes = chain_of(out), factor_of(hessian).double().numpy(), rest[3:5]
    left, classes = [target.double().numpy()[:, place] for target in targets], (classes[0][place], classes[1])
    for at in range(inner):
        want = np.array([rest[at] / steps[at] for rest in left])
        weights = WEIGHTS[: planes + 1].astype(float) * (float(steps[at]) / factor[at, at]) ** 2 / SCALE
        best, _ = slow.chain(want, weights, prices_of(price, classes, at))
        chosen = slow.read(levels[at, place], codes[at, place], planes)
        assert np.array_equal(values[:, at, place], chosen.astype(np.float32))
        cost = cost_of(chosen, want, weights, levels[at, place], prices_of(price, classes, at))
        assert best * (1 - 1e-4) - 1e-4 <= cost <= best * 1.002 + 1e-4
        for rest, value in zip(left, chosen, strict=True):
            rest[at + 1 :] -= np.outer(factor[at, at + 1 :], (rest[at] - value * steps[at]) / factor[at, at])


@pytest.mark.parametrize(("out", "inner"), [(40, 2), (20, 70)])
def test_a_round_chooses_every_input_anew_and_keeps_gradients_true(out, inner):
    _, hessian, steps, _, price = given = problem(out, inner, 4)
    levels, codes, values, targets, rest = start(given)
    before, gradients = values.copy(), gradients_of(values, targets, steps, hessian)
    last = [gradient[-1].double().numpy() for gradient in gradients]
    joint_search.descend(levels, codes, values, gradients, hessian, *rest)
    for gradient, true in zip(gradients, gradients_of(values, targets, steps, hessian), strict=True):
        assert torch.allclose(gradient, true, atol=2e-4)
    place = chain_of(out)
    for at in range(inner):
        read = slow.read(levels[at, place], codes[at, place], 4)
        assert np.array_equal(values[:, at, place], read.astype(np.float32))
    curve, step = float(hessian[-1, -1]), float(steps[-1])  # the last input, which is the first to be chosen
    want = np.array([before[d, -1] - last[d] / curve / step for d in range(5)])[:, place]
    weights = WEIGHTS.astype(float) * curve * step**2 / SCALE
    prices = prices_of(price, (rest[3][place], rest[4]), -1)
    best, _ = slow.chain(want, weights, prices)
    cost = cost_of(values[:, -1, place].astype(float), want, weights, levels[-1, place], prices)
    assert cost == pytest.approx(best, rel=2e-4)


def test_rounds_lower_what_all_depths_lose_together():
    _, hessian, steps, _, price = given = problem(300, 90, 4, seed=3)
    levels, codes, values, targets, rest = start(given)
    kinds = np.clip(rest[3][None] + rest[4][:, None], 0, 63)

    def total():
        found = SCALE * price[kinds, np.minimum(abs(levels), 127)].sum(dtype=np.float64)
        for weight, value, target in zip(WEIGHTS, values, targets, strict=True):
            e = (torch.from_numpy(value * steps[:, None]) - target).double()
            found += float(weight) * float((e * (hessian.double() @ e)).sum())
        return found

    before, gradients = total(), gradients_of(values, targets, steps, hessian)
    first = before
    for _ in range(3):
        joint_search.descend(levels, codes, values, gradients, hessian, *rest)
        after = total()
        assert after <= before * (1 + 1e-5)
        before = after
    assert before < 0.98 * first


def test_long_chains_lose_nothing_to_being_cut_into_pieces():
    """Pieces begin with all states alike, so many rows early; the cost of 1,000 rows is that of one search, nearly."""
    rng = np.random.default_rng(0)
    w, one = torch.from_numpy(rng.uniform(-8, 8, (1, 1000)).astype(np.float32)), torch.eye(1)
    price, weights = np.zeros((64, 128), np.float32), np.array([1, 4, 12, 8, 4], np.float32)
    classes = np.zeros(1000, np.int16), np.zeros(1, np.int16)
    targets, laid_classes = laid([w] * 5, classes)
    levels, codes, _ = joint_search.feedback(
        targets, [one] * 5, np.ones(1, np.float32), weights, 1.0, *laid_classes, price
    )
    place = joint_search.place_of(1000)
    chosen = slow.read(levels[0, place], codes[0, place], 4)
    cost = (weights[:, None] * (chosen - w.numpy()) ** 2).sum()
    best, _ = slow.chain(np.repeat(w.double().numpy(), 5, 0), weights, np.zeros((1000, 128)))
    assert best <= cost * (1 + 1e-5)
    assert cost < best * 1.002


def test_a_trellis_gains_on_a_uniform_source():
    """One plane that is nearly all that counts: 0.99 dB are the theory of 4 states at a high rate."""
    rng = np.random.default_rng(0)
    w, one = torch.from_numpy(rng.uniform(-40, 40, (1, 20_000)).astype(np.float32)), torch.eye(1)
    price, weights = np.zeros((64, 128), np.float32), np.array([0.01, 4], np.float32)
    classes = np.zeros(20_000, np.int16), np.zeros(1, np.int16)
    targets, laid_classes = laid([w] * 2, classes)
    _, _, values = joint_search.feedback(
        targets, [one] * 2, np.ones(1, np.float32), weights, 1.0, *laid_classes, price
    )
    lost = ((values[1, 0, joint_search.place_of(20_000)] - w.numpy()[0]) ** 2).mean()
    assert 10 * np.log10(lost / (0.25 / 12)) < -0.95
