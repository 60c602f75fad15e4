"""Levels of one matrix on unbounded grids, a step for every row and column: what the entropy coder is given."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bntools.core.errors import usage
from bntools.core.importance.metric import Metric
from bntools.core.packing import entropy
from bntools.core.packing.entropy import EntropyCoded
from bntools.kernels.entropy import dependent_trellis, rans, step_classes
from bntools.kernels.entropy.step_classes import OCTAVE

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

_SHRINK = 0.6
_LAZY = 64  # columns whose feedback is gathered before it reaches the rest of the matrix


class Quantized(NamedTuple):
    """A coded matrix, its dense values [out, in] float32, and its predicted loss tr(A E B E^T) / 2 in nats, with the
    diagonal of A."""

    coded: EntropyCoded
    values: Tensor
    loss: float


def shrinks(is_trellis: bool) -> dependent_trellis.Floats:
    """Factor towards zero of every class [64]: 1 / (1 + 0.6 D / sigma^2), the Wiener factor of a class whose error
    D and standard deviation sigma follow from its mean level alone, weakened because levels of 0 lose nothing."""
    sigma = 1.25 * 2.0 ** (
        (np.arange(rans.CLASSES) - step_classes.MIDDLE) / step_classes.CLASSES
    )  # in steps; |w| has mean 0.8 sigma
    noise = 1 / 12 / (1.28 if is_trellis else 1.0)
    return (1 / (1 + _SHRINK * noise / sigma**2)).astype(np.float32)


def quantize(w: Tensor, metric: Metric, alpha: float, is_trellis: bool) -> Quantized:
    """Levels of W [out, in] at the model's constant `alpha`, by GPTQ's feedback over inputs and outputs.

    Steps alpha * row_i * col_j, rounded to an eighth of an octave; on a trellis levels count half steps of 0.56 of
    that. Classes are a rank-one fit of |w| in steps. Raises BnError (exit 2) for steps so fine that levels run out.
    """
    order = torch.from_numpy(metric.order)
    targets = w.T[order].contiguous().numpy()
    row, col, row_class, col_class = _sides(targets, metric, alpha, is_trellis)
    rows, cols = entropy.powers(row, OCTAVE), entropy.powers(col, OCTAVE)
    shrink = shrinks(is_trellis)[_classes(row_class, col_class)]
    levels = np.empty(targets.shape, dtype=np.int16)
    whitened = _feedback(targets, metric, _Scales(rows, cols, shrink), is_trellis, levels)
    if int(np.abs(levels.astype(np.int32)).max()) >= step_classes.LARGEST:
        raise usage("the step is so fine that levels exceed their 16 bits", "a smaller --budget")
    back = order.argsort().numpy()
    coded = EntropyCoded(levels[back], row, col[back], row_class, col_class[back])
    values = dependent_trellis.multiples(coded.levels, is_trellis)
    dependent_trellis.scale(values, rows, cols[back], shrinks(is_trellis), row_class, coded.col_class)
    return Quantized(coded, torch.from_numpy(values.T), _loss(whitened, metric))


def class_counts(w: Tensor, metric: Metric, alpha: float, is_trellis: bool) -> Counts:
    """How many weights of W [out, in] would be in each class [64]; their levels are not needed for that."""
    targets = w.T[torch.from_numpy(metric.order)].contiguous().numpy()
    *_, row_class, col_class = _sides(targets, metric, alpha, is_trellis)
    return np.bincount(_classes(row_class, col_class).ravel(), minlength=rans.CLASSES)


def _sides(
    targets: dependent_trellis.Floats, metric: Metric, alpha: float, is_trellis: bool
) -> tuple[step_classes.Ints, step_classes.Ints, step_classes.Ints, step_classes.Ints]:
    """(row, col, row_class, col_class): exponents and classes. targets [in, out], in the order of coding."""
    half = dependent_trellis.HALF_STEP if is_trellis else 1.0
    row, col = step_classes.exponents(metric.row), step_classes.exponents(metric.col * alpha * half)
    col = step_classes.coarsened(col, targets, entropy.powers(row, OCTAVE))
    row_class, col_class = step_classes.classes(
        targets, entropy.powers(row, OCTAVE), entropy.powers(col, OCTAVE) / half
    )
    return row, col, row_class, col_class


def _classes(row_class: step_classes.Ints, col_class: step_classes.Ints) -> Counts:
    """The class of every weight [in, out]."""
    return np.clip(row_class[None].astype(np.int64) + col_class[:, None], 0, rans.CLASSES - 1)


class _Scales(NamedTuple):
    """Steps of the rows [out] and of the columns [in], and what each weight is drawn towards zero by [in, out]."""

    rows: dependent_trellis.Floats
    cols: dependent_trellis.Floats
    shrink: dependent_trellis.Floats


def _feedback(
    targets: dependent_trellis.Floats, metric: Metric, scales: _Scales, is_trellis: bool, levels: entropy.Ints
) -> dependent_trellis.Floats:
    """Code all columns in order; returns E U^-1 [in, out], the errors where the input metric is white."""
    rows, cols, shrink = scales
    work, factor = torch.from_numpy(targets.copy()), torch.from_numpy(metric.factor)
    done = work.numpy()
    for start in range(0, len(targets), _LAZY):
        here = slice(start, min(start + _LAZY, len(targets)))
        dependent_trellis.columns(
            done[here], metric.factor[here, here], rows, cols[here], shrink[here], metric.weight, metric.feedback,
            is_trellis, levels[here],
        )  # fmt: skip
        work[here.stop :].addmm_(factor[here, here.stop :].T, work[here], alpha=-1)
    return done


def _loss(whitened: dependent_trellis.Floats, metric: Metric) -> float:
    """Half the squared errors where B is white, weighted by A's diagonal."""
    energy = np.einsum("ij,ij->j", whitened, whitened, dtype=np.float64)
    return float(energy @ metric.rows.astype(np.float64) / 2)
