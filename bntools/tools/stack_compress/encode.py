"""One matrix as a stack: an entropy-coded base, and one-bit planes inside its cells.

What feedback leaves in the base only feedback with the same factor could continue, which the decoder does not know; so
planes made one after the other always find part of their target out of reach. Hence base and first planes are chosen
together (`kernels.nested`), every layer giving a little for those above it. Planes above those are made one by one,
under weakened feedback: H_theta = (1 - theta) H + theta diag H costs a plane second order in theta, and brings the
target of the next nearer in first order; the same with phi in the descent of a plane.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bntools.core.errors import usage
from bntools.core.importance import metric
from bntools.core.importance.sensitivity import FisherMoments
from bntools.core.packing import entropy, stack
from bntools.core.packing.entropy import EntropyCoded
from bntools.kernels.entropy import step_classes as grid
from bntools.kernels.entropy import unbounded_levels
from bntools.kernels.entropy.step_classes import CLASSES, MIDDLE, OCTAVE
from bntools.kernels.stack import joint_search, plane_trellis
from bntools.kernels.stack import planes as kernel

_FIT = 1e-6  # of the mean diagonal: what is factored is damped already
PLANE_SWEEPS, TOGETHER_SWEEPS = 3, 1


@dataclass(frozen=True)
class Recipe:
    """How base and planes are made. base: theta of the steps. theta, phi: of planes that are made one by one, the last
    entry the last plane's.

    price: of a bit in the base's choice of levels, 1 being the exchange of reverse water-filling. weights: of the
    errors of the base and of the planes that are chosen together with it.
    """

    planes: int = 4
    base: float = 0.4
    theta: tuple[float, ...] = (0.6, 0.3)
    phi: tuple[float, ...] = (0.75, 0.5, 0.0)
    price: float = 1.8
    weights: tuple[float, ...] = (1.0, 4.0, 14.0, 6.0, 2.0)

    @property
    def first(self) -> int:
        """Planes that are chosen together with the base."""
        return min(self.planes, len(self.weights) - 1, joint_search.MOST)

    def thetas(self) -> list[float]:
        return _spread(self.theta, self.planes)

    def phis(self) -> list[float]:
        return _spread(self.phi, self.planes)


def _spread(values: tuple[float, ...], count: int) -> list[float]:
    """`count` values: the last ones given, the first one repeated before them."""
    return [values[0]] * (count - len(values)) + list(values[max(len(values) - count, 0) :])


@dataclass
class Stacked:
    """coded: the base. planes: [planes, out, ceil(in / 8)] uint8, rows as in W; the first `trellis` of them are codes.

    losses: predicted loss of every row in nats, [planes + 1, out] float64, of the base and after each plane, each from
    what that was aimed at. errors: the same without the weights of the rows, E B E^T. energy: sum over the rows
    of W B W^T.
    """

    coded: EntropyCoded
    planes: NDArray[np.uint8]
    losses: NDArray[np.float64]
    errors: NDArray[np.float64]
    energy: float
    trellis: int

    def first(self, planes: int) -> Stacked:
        """The same with no more than so many planes."""
        layers = (self.losses[: planes + 1], self.errors[: planes + 1])
        return Stacked(self.coded, self.planes[:planes], *layers, self.energy, min(planes, self.trellis))


@dataclass
class _Ground:
    """What base and planes of one matrix share, inputs in the order of coding; made where it is not given."""

    order: Tensor
    hessian: Tensor
    factors: dict[float, Tensor]

    def weak(self, theta: float) -> Tensor:
        """H_theta: the off-diagonal times 1 - theta."""
        weak = self.hessian * (1 - theta)
        weak.diagonal().copy_(self.hessian.diagonal())
        return weak

    def factor(self, theta: float) -> Tensor:
        """Upper U with H_theta^-1 = U^T U."""
        if theta not in self.factors:
            self.factors[theta] = metric.damped_factor(self.weak(theta), _FIT)[0]
        return self.factors[theta]

    def quadratic(self, rows: Tensor) -> NDArray[np.float64]:
        """r H r^T of every row, from R^T [in, out]."""
        return np.einsum("ij,ij->j", rows.numpy(), (self.hessian @ rows).numpy(), dtype=np.float64)


def _ground(inputs: Tensor) -> _Ground:
    order = inputs.diagonal().argsort(descending=True, stable=True)
    hessian = inputs[order][:, order].clone()
    diagonal = hessian.diagonal()
    mean = float(diagonal.mean()) or 1.0
    diagonal.masked_fill_(diagonal <= 0, mean).add_(metric.INPUT_DAMPING * mean)
    return _Ground(order, hessian, {})


def sides(
    moments: FisherMoments, alpha: float, theta: float, ground: _Ground | None = None
) -> tuple[_Ground, entropy.Ints, entropy.Ints]:
    """The ground of a matrix, and scale exponents by reverse water-filling: rows A_ii^(-1/2), columns alpha U_jj."""
    ground = ground or _ground(moments.inputs)
    row = moments.rows.clamp(min=1e-30).rsqrt()
    return (
        ground,
        grid.exponents(row.numpy()),
        grid.exponents(alpha * ground.factor(theta).diagonal().numpy()),
    )


def encode(
    w: Tensor, moments: FisherMoments, alpha: float, recipe: Recipe, begun: Stacked | None = None
) -> Stacked:
    """The stack of W [out, in] at the model's constant `alpha`, on from what is begun; a plane that lowers no loss
    ends it.

    Raises BnError as `base` does.
    """
    begun = begun or whole(w, moments, alpha, recipe)
    return useful(refine(w, moments, begun, recipe, recipe.planes))


def whole(w: Tensor, moments: FisherMoments, alpha: float, recipe: Recipe) -> Stacked:
    """The base and the planes that are chosen together with it, all of them for W."""
    return begin([w] * (recipe.first + 1), moments, alpha, recipe)


def base(w: Tensor, moments: FisherMoments, alpha: float, recipe: Recipe) -> Stacked:
    """The base of W [out, in] for itself alone, by feedback."""
    return begin([w], moments, alpha, recipe, 0)


def begin(
    targets: Sequence[Tensor],
    moments: FisherMoments,
    alpha: float,
    recipe: Recipe,
    sweeps: int = TOGETHER_SWEEPS,
) -> Stacked:
    """The base and the planes that are chosen together with it, each layer for its target [out, in].

    sweeps: rounds of descent after the feedback. Steps are coarsened where levels would not be within 16 bits.
    Raises BnError (exit 2) where feedback still brings them there.
    """
    ground, row, col = sides(moments, alpha, recipe.base)
    first = _targets(targets[0], row, ground).numpy()
    ones = np.ones(len(row), np.float32)
    col = grid.coarsened(col, first, ones)
    steps, back = entropy.powers(col, OCTAVE), ground.order.argsort().numpy()
    row_class, col_class = grid.classes(first, ones, steps)
    price, weights = (
        unbounded_levels.prices(recipe.price, MIDDLE, CLASSES),
        np.float32(recipe.weights[: len(targets)]),
    )
    levels, planes = np.empty(first.shape, np.int16), len(targets) - 1
    bits = np.empty((planes, len(row), -(-len(col) // 8)), np.uint8)
    errors, energy = np.zeros((len(targets), len(row))), np.zeros(len(row))
    for rows in _bands(row, len(col)):
        chain, place = rows[joint_search.places(len(rows))], joint_search.place_of(len(rows))
        aims = [_targets(w[chain], row[chain], ground) for w in targets]
        how = (steps, weights, alpha * alpha, row_class[chain], col_class, price)
        q, codes, values = joint_search.feedback(aims, [ground.factor(0.0)] * len(aims), *how)
        gradients = [ground.hessian @ left for left in _left(values, steps, aims)] if sweeps else []
        for _ in range(sweeps):
            joint_search.descend(q, codes, values, gradients, ground.hessian, *how)
        levels[:, rows] = q[back][:, place]
        errors[:, rows] = [ground.quadratic(left[:, place]) for left in _left(values, steps, aims)]
        energy[rows] = ground.quadratic(aims[0][:, place])
        for plane in range(planes):
            chosen = codes[back][:, place] >> (joint_search.MOST - 1 - plane) & 1
            bits[plane, rows] = kernel.pack(chosen.astype(np.int8))
    if int(np.abs(levels.astype(np.int32)).max()) >= grid.LARGEST:
        raise usage("the step is so fine that levels exceed their 16 bits", "a smaller --base")
    coded = EntropyCoded(levels, row, col[back], row_class, col_class[back])
    squares = entropy.powers(row, OCTAVE).astype(np.float64) ** 2
    errors *= squares
    losses = errors * moments.rows.numpy() / 2
    return Stacked(coded, bits, losses, errors, float(energy @ squares), min(joint_search.TRELLIS, planes))


def refine(w: Tensor, moments: FisherMoments, made: Stacked, recipe: Recipe, planes: int) -> Stacked:
    """`made` with more planes, `planes` in all; those that come now are aimed at W [out, in].

    What is below may have been aimed at something else; the losses of each layer are from what it was aimed at.
    """
    if planes <= len(made.planes):
        return made
    ground, coded, there = _ground(moments.inputs), made.coded, len(made.planes)
    steps = entropy.powers(coded.col_scale, OCTAVE)[ground.order.numpy()]
    back, so_far = ground.order.argsort().numpy(), multiples(made)
    bits = np.empty((planes - there, *made.planes.shape[1:]), np.uint8)
    errors = np.zeros((len(bits), len(w)))
    for rows in _bands(coded.row_scale, len(steps)):
        residual = _targets(w[rows], coded.row_scale[rows], ground)
        residual -= so_far[rows].T[ground.order] * torch.from_numpy(steps)[:, None]
        for at, plane in enumerate(range(there, planes)):
            signs, half = _plane(residual, ground, steps, recipe, plane)
            residual -= torch.from_numpy(signs * half[:, None])
            bits[at, rows] = kernel.pack(signs[back])
            errors[at, rows] = ground.quadratic(residual)
    errors *= entropy.powers(coded.row_scale, OCTAVE).astype(np.float64) ** 2
    losses = errors * moments.rows.numpy() / 2
    layers = ((made.planes, bits), (made.losses, losses), (made.errors, errors))
    return Stacked(coded, *(np.concatenate(pair) for pair in layers), made.energy, made.trellis)


def _left(
    values: unbounded_levels.Floats, steps: unbounded_levels.Floats, targets: Sequence[Tensor]
) -> list[Tensor]:
    """What is between each layer, the base first, and its target [in, places]."""
    return [
        torch.from_numpy(value * steps[:, None]) - target
        for value, target in zip(values, targets, strict=True)
    ]


def multiples(made: Stacked) -> Tensor:
    """The weights [out, in], in steps of their row and column, by all planes that there are."""
    levels = made.coded.levels.T.astype(np.float32)
    for plane, bits in enumerate(made.planes):
        lines = [bits]
        if plane < made.trellis:
            lines = [np.empty_like(bits), np.empty_like(bits)]
            for rows in _bands(made.coded.row_scale, levels.shape[1]):
                lines[0][rows], lines[1][rows] = plane_trellis.decode(bits[rows])
        for finer, line in enumerate(lines):
            up = np.unpackbits(line, axis=1, count=levels.shape[1], bitorder="little")
            levels += (up - np.float32(0.5)) * np.float32(0.5 ** (plane + 1 + finer))
    return torch.from_numpy(levels)


def values(made: Stacked) -> Tensor:
    """The weights [out, in], float32, by all planes that there are."""
    rows, cols = (entropy.powers(side, OCTAVE) for side in (made.coded.row_scale, made.coded.col_scale))
    return multiples(made).mul_(torch.from_numpy(cols)).mul_(torch.from_numpy(rows)[:, None])


def _targets(w: Tensor, row: entropy.Ints, ground: _Ground) -> Tensor:
    """W [out, in] without the scales of its rows, as the kernels take it: [in, out], inputs in the order of coding."""
    return (w / torch.from_numpy(entropy.powers(row, OCTAVE))[:, None]).T[ground.order].contiguous()


def _bands(row_scale: entropy.Ints, inputs: int) -> list[NDArray[np.intp]]:
    """The rows of each band, in the order of the planes."""
    order = stack.row_order(row_scale)
    size = stack.band_rows(len(order), -(-inputs // 8))
    return [order[start : start + size] for start in range(0, len(order), size)]


def useful(made: Stacked) -> Stacked:
    """Without the first plane that does not lower the loss, and all behind it."""
    totals = made.losses.sum(1)
    worse = np.flatnonzero(~(totals[1:] < totals[:-1]))
    return made.first(int(worse[0])) if len(worse) else made


def _plane(
    residual: Tensor, ground: _Ground, steps: unbounded_levels.Floats, recipe: Recipe, plane: int
) -> tuple[NDArray[np.int8], unbounded_levels.Floats]:
    """Signs [in, out] of a plane, counted from 0, that is to bring the residual down, and the sizes of its moves."""
    half = steps * np.float32(2.0 ** -(plane + 2))
    signs = kernel.feedback(residual, ground.factor(recipe.thetas()[plane]), half)
    weak = ground.weak(recipe.phis()[plane])
    gradient = weak @ (torch.from_numpy(signs * half[:, None]) - residual)
    for _ in range(PLANE_SWEEPS):
        kernel.descend(signs, gradient, weak, half)
    return signs, half
