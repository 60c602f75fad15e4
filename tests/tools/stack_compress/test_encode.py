"""One matrix as a stack: what it decodes to, what it says it loses, and that every plane helps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bntools.core.importance.sensitivity import FisherMoments
from bntools.core.packing import entropy, stack
from bntools.core.packing.stack import Planes
from bntools.tools.stack_compress import encode
from bntools.tools.stack_compress.encode import Recipe

OCTAVE = encode.OCTAVE


def problem(out=40, inner=53, seed=0, tokens=300):
    torch.manual_seed(seed)
    x = torch.randn(tokens, inner) @ torch.randn(inner, inner) * torch.rand(inner)
    return torch.randn(out, inner), FisherMoments(x.T @ x / tokens, torch.rand(out) + 0.1)


def dense(made, planes):
    """The weights [out, in] with so many planes, by the formula of the page."""
    coded = made.coded
    value = coded.levels.T.astype(np.float64)
    order = stack.row_order(coded.row_scale)
    band = stack.band_rows(len(order), made.planes.shape[2])
    for plane in range(planes):
        bits = np.unpackbits(made.planes[plane], axis=1, bitorder="little")[:, : value.shape[1]].astype(int)
        if plane >= made.trellis:
            value += (bits - 0.5) * 2.0 ** -(plane + 1)
            continue
        for rank, row in enumerate(order):
            one, two = (bits[order[rank - back]] if rank % band >= back else 0 for back in (1, 2))
            value[row] += ((bits[row] ^ two) - 0.5) * 2.0 ** -(plane + 1) + (one - 0.5) * 2.0 ** -(plane + 2)
    rows, cols = (entropy.powers(side, OCTAVE) for side in (coded.row_scale, coded.col_scale))
    return torch.from_numpy(value * rows[:, None] * cols)


def test_the_losses_are_those_of_what_is_decoded():
    w, moments = problem()
    made = encode.encode(w, moments, 0.3, Recipe(3))
    assert len(made.planes) == 3
    for planes in range(4):
        error = w.double() - dense(made, planes)
        row = torch.einsum("ij,jk,ik->i", error, moments.inputs.double(), error)
        damped = row + 0.02 * float(moments.inputs.diagonal().mean()) * error.square().sum(1)
        assert np.allclose(made.errors[planes], damped, rtol=1e-3)
        assert np.allclose(made.losses[planes], damped * moments.rows / 2, rtol=1e-3)
    energy = torch.einsum("ij,jk,ik->", w, moments.inputs, w)
    assert made.energy == pytest.approx(float(energy), rel=0.05)


def test_a_plane_costs_one_bit_and_gains_what_a_bit_gains_but_little():
    """6.02 dB are the theory; the first plane makes up for what the base gives, the last one gets what is left."""
    w, moments = problem(200, 128, tokens=1000)
    losses = encode.encode(w, moments, 0.3, Recipe(4)).losses.sum(1)
    gains = 10 * np.log10(losses[:-1] / losses[1:])
    assert gains.min() > 3
    assert gains[:2].mean() > 6.4


def test_planes_chosen_with_the_base_lose_less_than_planes_chosen_after_it():
    """By layer, in dB: feedback leaves in a base what planes made after it cannot reach."""
    w, moments = problem(200, 128, tokens=1000)
    recipe = Recipe(3)
    after = encode.refine(w, moments, encode.base(w, moments, 0.3, recipe), recipe, 3)
    chosen = encode.whole(w, moments, 0.3, recipe)
    gained = 10 * np.log10(after.losses.sum(1) / chosen.losses.sum(1))
    assert -1.5 < gained[0] < 0
    assert gained[1:].min() > 0.4


def test_a_base_alone_has_the_scales_and_classes_of_the_stack():
    w, moments = problem()
    base, made = encode.base(w, moments, 0.3, Recipe(2)), encode.encode(w, moments, 0.3, Recipe(2))
    for kind in entropy.SIDES:
        assert np.array_equal(getattr(base.coded, kind), getattr(made.coded, kind))
    assert base.losses.sum() < made.losses[0].sum() < 1.5 * base.losses.sum()


def test_each_layer_is_chosen_for_its_own_target():
    w, moments = problem(200, 128, tokens=1000)
    away = 0.1 * w.std() * torch.randn_like(w)
    targets = [w + away, w, w]
    made = encode.begin(targets, moments, 0.3, Recipe(2))
    for planes, target in enumerate(targets):
        error = target.double() - dense(made, planes)
        row = torch.einsum("ij,jk,ik->i", error, moments.inputs.double(), error)
        damped = row + 0.02 * float(moments.inputs.diagonal().mean()) * error.square().sum(1)
        assert np.allclose(made.errors[planes], damped, rtol=1e-3)
    assert made.losses[2].sum() < made.losses[0].sum() / 5


def test_planes_may_be_aimed_at_another_target_than_the_base():
    """What a block is fed changes from size to size: each layer's losses are from its own target."""
    w, moments = problem(200, 128, tokens=1000)
    base = encode.base(w, moments, 0.3, Recipe(3))
    other = w + 0.2 * (encode.values(base) - w).abs().mean() * torch.randn_like(w)
    made = encode.refine(other, moments, base, Recipe(3), 3)
    assert np.array_equal(made.losses[0], base.losses[0])
    for planes in (1, 3):
        assert torch.allclose(encode.values(encode.refine(other, moments, base, Recipe(3), planes)).double(),
                              dense(made, planes), rtol=1e-5, atol=1e-6)  # fmt: skip
        error = other.double() - dense(made, planes)
        row = torch.einsum("ij,jk,ik->i", error, moments.inputs.double(), error)
        damped = row + 0.02 * float(moments.inputs.diagonal().mean()) * error.square().sum(1)
        assert np.allclose(made.errors[planes], damped, rtol=1e-3)
    again = encode.refine(other, moments, encode.refine(w, moments, base, Recipe(3), 1), Recipe(3), 3)
    assert again.losses.sum(1)[3] < base.losses.sum() / 6


@pytest.mark.parametrize(("out", "inner"), [(1, 1), (8, 13), (3, 200), (2100, 9)])
@pytest.mark.parametrize("dead", [False, True])
def test_odd_shapes_and_dead_rows_and_inputs_decode_as_the_reader_decodes(out, inner, dead):
    w, moments = problem(out, inner)
    if dead:
        w[0] = 0
        moments.inputs[0] = moments.inputs[:, 0] = 0
    made = encode.encode(w, moments, 0.3, Recipe(2))
    base = entropy.spec((out, inner), "F32", False, OCTAVE)
    spec = stack.spec(base, len(made.planes), stack.band_rows(out, -(-inner // 8)), made.trellis)
    counter = entropy.Counter(False)
    counter.add(made.coded)
    tables = counter.tables(np.ones(64, np.float32))
    decoder = entropy.Decoder(entropy.dump_tables(tables))
    order = stack.row_order(made.coded.row_scale)

    def part(block):
        plane, band = map(int, block.rsplit("/", 2)[1:])
        rows = spec.band_rows(band)
        return made.planes[plane - 1][order][rows.start : rows.stop].tobytes()

    coded = decoder.coded("w", spec, entropy.encode(made.coded, spec, tables))
    base = stack.Base.of(coded, decoder.tables.shrink, OCTAVE)
    assert np.array_equal(base.order, order)
    found = base.dense(Planes.read("w", spec, part), torch.float32, transposed=False)
    across = base.dense(Planes.read("w", spec, part), torch.float32, transposed=True)
    assert torch.equal(across, found.T)
    assert torch.allclose(found.double(), dense(made, len(made.planes)), rtol=1e-5, atol=1e-7)
    assert torch.isfinite(found).all()


def test_a_plane_that_lowers_no_loss_ends_the_stack():
    torch.manual_seed(0)
    levels = torch.randint(-3, 4, (30, 20)).float()
    moments = FisherMoments(torch.eye(20), torch.ones(30))
    step = encode.sides(moments, 1.0, Recipe().base)
    exact = levels * torch.from_numpy(entropy.powers(step[2], OCTAVE))[step[0].order.argsort()]
    assert len(encode.encode(exact, moments, 1.0, Recipe(3, price=0.0)).planes) == 0


def test_steps_too_fine_for_the_levels_are_coarsened():
    """Of one input a thousand times the others, and of a constant that asks for more than 16 bits of every level."""
    w, moments = problem()
    for weight, alpha in ((w * torch.where(torch.arange(53) == 7, 3e4, 1.0), 0.3), (w, 1e-6)):
        made = encode.encode(weight, moments, alpha, Recipe(1))
        assert int(np.abs(made.coded.levels.astype(int)).max()) < 15_000
        rough = np.abs(made.coded.levels).max(1) > 2_000
        assert rough.any()
        assert float((weight - dense(made, len(made.planes))).norm() / weight.norm()) < 1e-3


def test_the_last_thetas_belong_to_the_last_planes():
    recipe = Recipe(4, theta=(0.6, 0.3), phi=(0.75, 0.5, 0.0))
    assert recipe.thetas() == [0.6, 0.6, 0.6, 0.3]
    assert recipe.phis() == [0.75, 0.75, 0.5, 0.0]
    assert Recipe(1).phis() == [0.0]
    assert Recipe(0).thetas() == []
