"""One matrix as a stack: an entropy-coded base with weakened feedback, then one-bit planes inside its cells.

Feedback leaves errors that only feedback with the same factor could continue, which the decoder does not know; so the
next layer always finds part of its target out of reach. Weakening, H_theta = (1 - theta) H + theta diag H, costs the
base second order in theta and brings the target of the planes nearer in first order; the same with phi in the
descent of a plane protects the planes after it. What is found so, layer by layer, is the start of a descent in H itself
that moves each weight at all its depths at once (`kernels.nested`): every layer gives a little for those above it.
Rows of a matrix do not see each other at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bntools.core import entropy, metric
from bntools.core.entropy import Coded
from bntools.core.errors import usage
from bntools.core.sensitivity import Moments
from bntools.kernels import nested, scalar
from bntools.kernels import planes as kernel
from bntools.kernels import steps as grid
from bntools.kernels.steps import CLASSES, MIDDLE, OCTAVE

_ROWS = 2048  # of a matrix at once
_FIT = 1e-6  # of the mean diagonal: what is factored is damped already
BASE_SWEEPS, PLANE_SWEEPS, TOGETHER_SWEEPS = 2, 3, 2
START_SWEEPS = 1  # of a plane that will be chosen anew with others


@dataclass(frozen=True)
class Recipe:
    """How base and planes are made. base: theta of the base. theta, phi: of each plane, the last entry its last's.

    price: of a bit in the base's choice of levels, 1 being the exchange of reverse water-filling. weights: of the
    errors of the base and of the planes that are chosen together with it.
    """

    planes: int = 4
    base: float = 0.6
    theta: tuple[float, ...] = (0.6, 0.3)
    phi: tuple[float, ...] = (0.75, 0.5, 0.0)
    price: float = 0.5
    weights: tuple[float, ...] = (1.0, 3.0, 10.0, 15.0, 20.0)

    @property
    def first(self) -> int:
        """Planes that are chosen together with the base."""
        return min(self.planes, len(self.weights) - 1)

    def thetas(self) -> list[float]:
        return _spread(self.theta, self.planes)

    def phis(self) -> list[float]:
        return _spread(self.phi, self.planes)


def _spread(values: tuple[float, ...], count: int) -> list[float]:
    """`count` values: the last ones given, the first one repeated before them."""
    return [values[0]] * (count - len(values)) + list(values[max(len(values) - count, 0) :])


@dataclass
class Stacked:
    """coded: the base. planes: [planes, out, ceil(in / 8)] uint8, rows as in W.

    losses: predicted loss of every row in nats, [planes + 1, out] float64, of the base and after each plane, each from
    what that was aimed at. errors: the same without the weights of the rows, E B E^T. energy: sum over the rows
    of W B W^T.
    """

    coded: Coded
    planes: NDArray[np.uint8]
    losses: NDArray[np.float64]
    errors: NDArray[np.float64]
    energy: float

    def first(self, planes: int) -> Stacked:
        """The same with no more than so many planes."""
        layers = (self.losses[: planes + 1], self.errors[: planes + 1])
        return Stacked(self.coded, self.planes[:planes], *layers, self.energy)


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
            self.factors[theta] = metric.inverse_factor(self.weak(theta), _FIT)[0]
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
    moments: Moments, alpha: float, theta: float, ground: _Ground | None = None
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
    w: Tensor, moments: Moments, alpha: float, recipe: Recipe, begun: Stacked | None = None
) -> Stacked:
    """The stack of W [out, in] at the model's constant `alpha`, on from what is begun; a plane that lowers no loss
    ends it.

    Raises BnError as `base` does.
    """
    begun = begun or whole(w, moments, alpha, recipe)
    return useful(refine(w, moments, begun, recipe, recipe.planes))


def whole(w: Tensor, moments: Moments, alpha: float, recipe: Recipe) -> Stacked:
    """The base and the planes that are chosen together with it, all of them for W."""
    return begin([w] * (recipe.first + 1), moments, alpha, recipe)


def begin(targets: Sequence[Tensor], moments: Moments, alpha: float, recipe: Recipe) -> Stacked:
    """The base and the planes that are chosen together with it, each layer for its target [out, in].

    Layer by layer first, for a start. Raises BnError as `base` does.
    """
    ground = _ground(moments.inputs)
    made = base(targets[0], moments, alpha, recipe, ground)
    for planes in range(1, len(targets)):
        made = refine(targets[planes], moments, made, recipe, planes, ground)
    return together(targets, moments, made, alpha, recipe, ground)


def base(w: Tensor, moments: Moments, alpha: float, recipe: Recipe, ground: _Ground | None = None) -> Stacked:
    """The base of W [out, in] alone.

    Steps are coarsened where levels would not be within 16 bits. Raises BnError (exit 2) where feedback still
    brings them there.
    """
    ground, row, col = sides(moments, alpha, recipe.base, ground)
    targets = _targets(w, row, ground)
    ones = np.ones(len(w), np.float32)
    col = grid.coarsened(col, targets.numpy(), ones)
    steps = entropy.powers(col, OCTAVE)
    row_class, col_class = grid.classes(targets.numpy(), ones, steps)
    back = ground.order.argsort().numpy()
    levels = np.empty(tuple(w.shape[::-1]), np.int16)
    errors, energy = np.zeros((1, len(w))), np.zeros(len(w))
    for part in _parts(len(w)):
        target = targets[:, part].contiguous()
        energy[part] = ground.quadratic(target)
        found = _base(target, ground, steps, row_class[part], col_class, alpha, recipe)
        levels[:, part] = found[back]
        errors[0, part] = ground.quadratic(
            target - torch.from_numpy(found.astype(np.float32) * steps[:, None])
        )
    if int(np.abs(levels.astype(np.int32)).max()) >= grid.LARGEST:
        raise usage("the step is so fine that levels exceed their 16 bits", "a smaller --base")
    coded = Coded(levels, row, col[back], row_class, col_class[back])
    squares = entropy.powers(row, OCTAVE).astype(np.float64) ** 2
    errors *= squares
    bits = np.empty((0, len(w), -(-w.shape[1] // 8)), np.uint8)
    return Stacked(coded, bits, errors * moments.rows.numpy() / 2, errors, float(energy @ squares))


def refine(
    w: Tensor, moments: Moments, made: Stacked, recipe: Recipe, planes: int, ground: _Ground | None = None
) -> Stacked:
    """`made` with more planes, `planes` in all; those that come now are aimed at W [out, in].

    What is below may have been aimed at something else; the losses of each layer are from what it was aimed at.
    """
    ground, coded, there = ground or _ground(moments.inputs), made.coded, len(made.planes)
    targets = _targets(w, coded.row_scale, ground)
    steps = entropy.powers(coded.col_scale, OCTAVE)[ground.order.numpy()]
    back = ground.order.argsort().numpy()
    bits = np.empty((planes - there, *made.planes.shape[1:]), np.uint8)
    errors = np.zeros((len(bits), len(w)))
    for part in _parts(len(w)):
        residual = targets[:, part] - (
            multiples(made, part).T[ground.order] * torch.from_numpy(steps)[:, None]
        )
        for at, plane in enumerate(range(there, planes)):
            sweeps = START_SWEEPS if plane < recipe.first else PLANE_SWEEPS
            signs, half = _plane(residual, ground, steps, recipe, plane, sweeps)
            residual -= torch.from_numpy(signs * half[:, None])
            bits[at, part] = kernel.pack(signs[back])
            errors[at, part] = ground.quadratic(residual)
    errors *= entropy.powers(coded.row_scale, OCTAVE).astype(np.float64) ** 2
    losses = errors * moments.rows.numpy() / 2
    layers = ((made.planes, bits), (made.losses, losses), (made.errors, errors))
    return Stacked(coded, *(np.concatenate(pair) for pair in layers), made.energy)


def together(
    targets: Sequence[Tensor], moments: Moments, made: Stacked, alpha: float, recipe: Recipe,
    ground: _Ground | None = None,
) -> Stacked:  # fmt: skip
    """`made` with the base and all its planes chosen anew, together, each layer for its target [out, in]."""
    ground, coded, planes = ground or _ground(moments.inputs), made.coded, len(made.planes)
    order, back = ground.order.numpy(), ground.order.argsort().numpy()
    steps, col_class = entropy.powers(coded.col_scale, OCTAVE)[order], coded.col_class[order]
    price = scalar.prices(recipe.price, MIDDLE, CLASSES)
    weights = np.array(recipe.weights[: planes + 1], np.float32)
    levels, bits, errors = np.empty_like(coded.levels), np.empty_like(made.planes), np.empty_like(made.errors)
    for part in _parts(len(coded.row_scale)):
        q, code = coded.levels[order, part], _codes(made.planes[:, part], len(steps))[order]
        aims = [_targets(w[part], coded.row_scale[part], ground) for w in targets]
        gradients = [ground.hessian @ rows for rows in _left(q, code, steps, aims)]
        for _ in range(TOGETHER_SWEEPS):
            nested.descend(
                q, code, planes, gradients, ground.hessian, steps, weights, alpha * alpha,
                coded.row_class[part], col_class, price,
            )  # fmt: skip
        errors[:, part] = [ground.quadratic(rows) for rows in _left(q, code, steps, aims)]
        levels[:, part] = q[back]
        for plane in range(planes):
            bits[plane, part] = kernel.pack((code[back] >> (planes - 1 - plane) & 1).astype(np.int8))
    errors *= entropy.powers(coded.row_scale, OCTAVE).astype(np.float64) ** 2
    losses = errors * moments.rows.numpy() / 2
    return Stacked(replace(coded, levels=levels), bits, losses, errors, made.energy)


def _left(
    levels: entropy.Ints, bits: entropy.Ints, steps: scalar.Floats, targets: list[Tensor]
) -> Iterator[Tensor]:
    """What is between each layer, the base first, and its target [in, out]."""
    for depth, target in enumerate(targets):
        values = nested.multiples(levels, bits, len(targets) - 1, depth) * steps[:, None]
        yield torch.from_numpy(values) - target


def _codes(bits: NDArray[np.uint8], inputs: int) -> entropy.Ints:
    """The bits of all planes [planes, rows, ceil(in / 8)] of each weight [in, rows], the first plane's the highest."""
    found = np.zeros((inputs, bits.shape[1]), np.int16)
    for plane in bits:
        found = 2 * found + np.unpackbits(plane, axis=1, count=inputs, bitorder="little").T
    return found


def multiples(made: Stacked, rows: slice = slice(None)) -> Tensor:
    """The weights [out, in] of some rows, in steps of their row and column, by all planes that there are."""
    found = made.coded.levels[:, rows].T.astype(np.float32)
    for plane, bits in enumerate(made.planes[:, rows]):
        signs = np.unpackbits(bits, axis=1, count=found.shape[1], bitorder="little").astype(np.float32)
        found += (signs - np.float32(0.5)) * np.float32(2.0 ** -(plane + 1))
    return torch.from_numpy(found)


def values(made: Stacked) -> Tensor:
    """The weights [out, in], float32, by all planes that there are."""
    rows, cols = (entropy.powers(side, OCTAVE) for side in (made.coded.row_scale, made.coded.col_scale))
    return multiples(made).mul_(torch.from_numpy(cols)).mul_(torch.from_numpy(rows)[:, None])


def _targets(w: Tensor, row: entropy.Ints, ground: _Ground) -> Tensor:
    """W [out, in] without the scales of its rows, as the kernels take it: [in, out], inputs in the order of coding."""
    return (w / torch.from_numpy(entropy.powers(row, OCTAVE))[:, None]).T[ground.order].contiguous()


def _parts(rows: int) -> list[slice]:
    return [slice(start, start + _ROWS) for start in range(0, rows, _ROWS)]


def useful(made: Stacked) -> Stacked:
    """Without the first plane that does not lower the loss, and all behind it."""
    totals = made.losses.sum(1)
    worse = np.flatnonzero(~(totals[1:] < totals[:-1]))
    return made.first(int(worse[0])) if len(worse) else made


def _base(
    target: Tensor, ground: _Ground, steps: scalar.Floats, row_class: entropy.Ints, col_class: entropy.Ints,
    alpha: float, recipe: Recipe,
) -> entropy.Ints:  # fmt: skip
    """Levels [in, out] by feedback and descent in H_theta: against H itself what they leave were out of reach."""
    price = scalar.prices(recipe.price, MIDDLE, CLASSES)
    levels = scalar.feedback(target, ground.factor(recipe.base), steps, row_class, col_class, price)
    weak = ground.weak(recipe.base)
    values = torch.from_numpy(levels.astype(np.float32) * steps[:, None])
    gradient = weak @ (values - target)
    for _ in range(BASE_SWEEPS):
        scalar.descend(levels, gradient, weak, steps, alpha * alpha, row_class, col_class, price)
    return levels


def _plane(
    residual: Tensor, ground: _Ground, steps: scalar.Floats, recipe: Recipe, plane: int, sweeps: int
) -> tuple[NDArray[np.int8], scalar.Floats]:
    """Signs [in, out] of a plane, counted from 0, that is to bring the residual down, and the sizes of its moves."""
    half = steps * np.float32(2.0 ** -(plane + 2))
    signs = kernel.feedback(residual, ground.factor(recipe.thetas()[plane]), half)
    weak = ground.weak(recipe.phis()[plane])
    gradient = weak @ (torch.from_numpy(signs * half[:, None]) - residual)
    for _ in range(sweeps):
        kernel.descend(signs, gradient, weak, half)
    return signs, half
