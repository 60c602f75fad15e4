"""One matrix as a stack: an entropy-coded base with weakened feedback, then one-bit planes inside its cells.

Feedback leaves errors that only feedback with the same factor could continue, which the decoder does not know; so the
next layer always finds part of its target out of reach. Weakening, H_theta = (1 - theta) H + theta diag H, costs the
base second order in theta and brings the target of the planes nearer in first order; the same with phi in the
descent of a plane protects the planes after it. Rows of a matrix do not see each other at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bntools.core import entropy, metric
from bntools.core.entropy import Coded
from bntools.core.errors import usage
from bntools.core.sensitivity import Moments
from bntools.kernels import planes, scalar
from bntools.kernels import steps as grid
from bntools.kernels.steps import CLASSES, MIDDLE, OCTAVE

_ROWS = 2048  # of a matrix at once
_FIT = 1e-6  # of the mean diagonal: what is factored is damped already
BASE_SWEEPS, PLANE_SWEEPS = 2, 3


@dataclass(frozen=True)
class Recipe:
    """How base and planes are made. base: theta of the base. theta, phi: of each plane, the last entry its last's.

    price: of a bit in the base's choice of levels, 1 being the exchange of reverse water-filling.
    """

    planes: int = 4
    base: float = 0.6
    theta: tuple[float, ...] = (0.6, 0.3)
    phi: tuple[float, ...] = (0.75, 0.5, 0.0)
    price: float = 0.5

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

    losses: predicted loss of every row in nats, [planes + 1, out] float64, of the base and after each plane. errors:
    the same without the weights of the rows, E B E^T. energy: sum over the rows of W B W^T.
    """

    coded: Coded
    planes: NDArray[np.uint8]
    losses: NDArray[np.float64]
    errors: NDArray[np.float64]
    energy: float


@dataclass
class _Ground:
    """What base and planes of one matrix share, inputs in the order of coding."""

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


def _ground(inputs: Tensor) -> _Ground:
    order = inputs.diagonal().argsort(descending=True, stable=True)
    hessian = inputs[order][:, order].clone()
    diagonal = hessian.diagonal()
    mean = float(diagonal.mean()) or 1.0
    diagonal.masked_fill_(diagonal <= 0, mean).add_(metric.INPUT_DAMPING * mean)
    return _Ground(order, hessian, {})


def sides(moments: Moments, alpha: float, theta: float) -> tuple[_Ground, entropy.Ints, entropy.Ints]:
    """The ground of a matrix, and scale exponents by reverse water-filling: rows A_ii^(-1/2), columns alpha U_jj."""
    ground = _ground(moments.inputs)
    row = moments.rows.clamp(min=1e-30).rsqrt()
    return (
        ground,
        grid.exponents(row.numpy()),
        grid.exponents(alpha * ground.factor(theta).diagonal().numpy()),
    )


def base(w: Tensor, moments: Moments, alpha: float, recipe: Recipe) -> Coded:
    """The base of W [out, in] alone."""
    return _encode(w, moments, alpha, recipe, 0).coded


def encode(w: Tensor, moments: Moments, alpha: float, recipe: Recipe) -> Stacked:
    """The stack of W [out, in] at the model's constant `alpha`; a plane that lowers no loss ends it.

    Steps are coarsened where levels would not be within 16 bits. Raises BnError (exit 2) where feedback still
    brings them there.
    """
    return _encode(w, moments, alpha, recipe, recipe.planes)


def _encode(w: Tensor, moments: Moments, alpha: float, recipe: Recipe, count: int) -> Stacked:
    ground, row, col = sides(moments, alpha, recipe.base)
    rows = entropy.powers(row, OCTAVE)
    targets = (w / torch.from_numpy(rows)[:, None]).T[ground.order].contiguous()
    ones = np.ones(len(w), np.float32)
    col = grid.coarsened(col, targets.numpy(), ones)
    steps = entropy.powers(col, OCTAVE)
    row_class, col_class = grid.classes(targets.numpy(), ones, steps)
    back = ground.order.argsort().numpy()
    levels = np.empty(tuple(w.shape[::-1]), np.int16)
    packed = np.empty((count, len(w), -(-w.shape[1] // 8)), np.uint8)
    errors, energy = np.zeros((count + 1, len(w))), np.zeros(len(w))
    for start in range(0, len(w), _ROWS):
        part = slice(start, start + _ROWS)
        target = targets[:, part].contiguous()
        energy[part] = _quadratic(target, ground.hessian @ target)
        found = _base(target, ground, steps, row_class[part], col_class, alpha, recipe)
        levels[:, part] = found[back]
        residual = target - torch.from_numpy(found.astype(np.float32) * steps[:, None])
        for plane, (signs, quadratic) in enumerate(_planes(residual, ground, steps, recipe, count)):
            errors[plane, part] = quadratic
            if signs is not None:
                packed[plane, part] = planes.pack(signs[back])
    if int(np.abs(levels.astype(np.int32)).max()) >= grid.LARGEST:
        raise usage("the step is so fine that levels exceed their 16 bits", "a smaller --base")
    errors *= rows.astype(np.float64) ** 2
    losses = errors * moments.rows.numpy() / 2
    kept = _useful(losses)
    coded = Coded(levels, row, col[back], row_class, col_class[back])
    total = float(energy @ rows.astype(np.float64) ** 2)
    return Stacked(coded, packed[:kept], losses[: kept + 1], errors[: kept + 1], total)


def _useful(losses: NDArray[np.float64]) -> int:
    """Planes before the first that does not lower the loss."""
    totals = losses.sum(1)
    worse = np.flatnonzero(~(totals[1:] < totals[:-1]))
    return int(worse[0]) if len(worse) else len(totals) - 1


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


def _planes(
    residual: Tensor, ground: _Ground, steps: scalar.Floats, recipe: Recipe, count: int
) -> Iterator[tuple[NDArray[np.int8] | None, NDArray[np.float64]]]:
    """The signs of each plane [in, out], beside r H r of each row before it; at last None and what is left."""
    thetas, phis = recipe.thetas(), recipe.phis()
    for plane in range(count):
        product = ground.hessian @ residual
        before = _quadratic(residual, product)
        half = steps * np.float32(2.0 ** -(plane + 2))
        signs = planes.feedback(residual, ground.factor(thetas[plane]), half)
        weak = ground.weak(phis[plane])
        gradient = weak @ (torch.from_numpy(signs * half[:, None]) - residual)
        for _ in range(PLANE_SWEEPS):
            planes.descend(signs, gradient, weak, half)
        residual = residual - torch.from_numpy(signs * half[:, None])
        yield signs, before
    yield None, _quadratic(residual, ground.hessian @ residual)


def _quadratic(rows: Tensor, product: Tensor) -> NDArray[np.float64]:
    """r H r^T of every row, from R^T and H R^T [in, out]."""
    return np.einsum("ij,ij->j", rows.numpy(), product.numpy(), dtype=np.float64)
