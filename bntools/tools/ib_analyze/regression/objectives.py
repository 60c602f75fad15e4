"""The losses of five ways through a bottleneck, each of a batch of standardised rows.

Every method trains the same network for as many steps; only the loss differs, and whether the code has noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from bntools.core.information.bottleneck_regression import BottleneckOutput
from bntools.kernels.information import differentiable

METHODS = ("mse", "vib", "nib", "hsic", "cs-ib")
STOCHASTIC = ("vib", "nib")
"""Methods whose code has noise in training; the released CS-IB trains without, and so does HSIC's."""


class Weighing(NamedTuple):
    """beta: weight of the compression; norm: `paper` or `repo`; x, y: widths of kernels, fixed for a training.

    code: width of the code's kernel, None for its median distance in each batch.
    """

    beta: float
    norm: str
    x: float
    y: float
    code: float | None

    def of_code(self, output: BottleneckOutput) -> float | Tensor:
        return differentiable.median_width(output.code) if self.code is None else self.code


def mse(x: Tensor, y: Tensor, output: BottleneckOutput, how: Weighing) -> Tensor:
    """Squared error alone: beta has nothing to weigh."""
    return (output.prediction - y).square().mean()


def vib(x: Tensor, y: Tensor, output: BottleneckOutput, how: Weighing) -> Tensor:
    """Variational bottleneck: squared error and beta KL(q(t | x) || N(0, I)) (Alemi et al. 2017)."""
    kept = differentiable.normal_divergence(output.mean, output.log_variance)
    return mse(x, y, output, how) + how.beta * kept


def nib(x: Tensor, y: Tensor, output: BottleneckOutput, how: Weighing) -> Tensor:
    """Nonlinear bottleneck: squared error and beta times an upper bound of I(x; t) (Kolchinsky et al. 2019)."""
    kept = differentiable.pairwise_information(output.mean, output.log_variance)
    return mse(x, y, output, how) + how.beta * kept


def hsic(x: Tensor, y: Tensor, output: BottleneckOutput, how: Weighing) -> Tensor:
    """Squared error and beta (HSIC(x, t) - HSIC(y, t)), normalised (Wang et al. 2021)."""
    code = how.of_code(output)
    kept = differentiable.normalized_hsic(x, output.code, (how.x, code))
    told = differentiable.normalized_hsic(y, output.code, (how.y, code))
    return mse(x, y, output, how) + how.beta * (kept - told)


def cs_ib(x: Tensor, y: Tensor, output: BottleneckOutput, how: Weighing) -> Tensor:
    """D_CS(p(y | x); p(prediction | x)) + beta I_CS(x; t), normalised (Yu et al. 2024)."""
    widths = (how.x, how.y)
    fit = differentiable.conditional_divergence(x, y, output.prediction, widths=widths, norm=how.norm)
    if not how.beta:
        return fit
    kept = differentiable.normalized_cauchy_schwarz(x, output.code, (how.x, how.of_code(output)))
    return fit + how.beta * kept


LOSSES: dict[str, Callable[[Tensor, Tensor, BottleneckOutput, Weighing], Tensor]] = {
    "mse": mse, "vib": vib, "nib": nib, "hsic": hsic, "cs-ib": cs_ib,
}  # fmt: skip
