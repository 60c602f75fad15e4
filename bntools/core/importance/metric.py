"""What a quantizer needs of a layer's statistics: factors of the two metrics, and the steps they imply.

The loss of an error E of W [out, in] is taken as tr(A E B E^T) / 2, in nats a token summed over the layer: B the
second moments of the inputs, A of the gradients at the outputs (Fisher, by random gradients of its covariance). With
B^-1 = U^T U, U upper, feedback leaves an error white in E U^-1; reverse water-filling then makes the step of input j
proportional to U_jj, the step of output i to 1 / sqrt(A_ii), or the same with A's own factor, and one constant for
the whole model trades bits for loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bntools.core.errors import bad_input, usage
from bntools.core.importance.fisher_sweep import HeadMoments, Sensitivity
from bntools.kernels.entropy import dependent_trellis
from bntools.kernels.rounding import cholesky

INPUT_DAMPING = 0.02  # of the mean diagonal; some of the moments come from few gradients
OUTPUT_DAMPING = 0.2
ROW_FLOOR = 0.1  # of the mean: rows whose gradients the text hardly shows
_EMBEDDING_FLOOR = 0.3


@dataclass(frozen=True)
class Metric:
    """The two metrics of one matrix, factored, without the constant that sets the rate.

    order [in]: inputs in the order of coding, the largest B_jj first. factor [in, in]: U in that order. feedback
    [out, out] (or [0, 0]: A diagonal) and weight [out]: see `kernels.trellis`. row [out], col [in, coded order]:
    steps. rows [out]: A's diagonal. damping: what it took to factor B. All numpy float32.
    """

    order: dependent_trellis.Floats
    factor: dependent_trellis.Floats
    feedback: dependent_trellis.Floats
    weight: dependent_trellis.Floats
    row: dependent_trellis.Floats
    col: dependent_trellis.Floats
    rows: dependent_trellis.Floats
    damping: float


def of_linear(sensitivity: Sensitivity) -> Metric:
    """The metric of a linear layer from a sweep.

    A is taken whole where the sweep gathered it, otherwise by its diagonal.
    """
    return _metric(*linear_moments(sensitivity), sensitivity.outputs)


def linear_moments(sensitivity: Sensitivity) -> tuple[Tensor, Tensor]:
    """B [in, in] and A's diagonal [out] of a linear layer, float32."""
    return sensitivity.inputs, sensitivity.rows + ROW_FLOOR * max(float(sensitivity.rows.mean()), 1e-30)


def of_embedding(
    head: HeadMoments, first: Tensor, counts: Tensor, *, used: tuple[bool, bool], shape: Sequence[int]
) -> Metric:
    """The metric of an embedding [vocabulary, d], of an output head, or of a matrix that is both."""
    return _metric(*embedding_moments(head, first, counts, used=used, shape=shape), None)


def embedding_moments(
    head: HeadMoments, first: Tensor, counts: Tensor, *, used: tuple[bool, bool], shape: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """B [d, d] and A's diagonal [rows] of an embedding, of an output head, or of a matrix that is both.

    used: as head, as embedding. shape: of the matrix [rows, d]; rows past the vocabulary weigh what the floor gives.

    As head, row v weighs E[p_v (1 - p_v)] with inputs `head.second`; as embedding it weighs how often token v
    occurs, with `first` = E[g g^T] at the embedded tokens. counts: [vocabulary] occurrences in the calibration text.
    Every row weighs at least 0.3 of the mean, every direction 0.3 of the mean direction: a text of some thousand
    tokens says nothing about the rest of the vocabulary. Raises BnError (exit 2) where the vectors have another
    width than what the blocks take or give.
    """
    size, width = shape
    frequency = counts.float() / max(float(counts.sum()), 1.0)
    rows, inputs = torch.zeros(size), torch.zeros(width, width)
    ways = ((head.variance, head.second), (frequency, first))
    for weights, moments in (way for way, taken in zip(ways, used, strict=True) if taken):
        if len(moments) != width:
            raise usage(f"the embedding's {width} numbers are projected to {len(moments)} before the blocks",
                        "an embedding as it is: --no-embedding")  # fmt: skip
        weights = torch.nn.functional.pad(weights, (0, size - len(weights)))  # cuts where that is negative
        rows = rows + weights * (moments.diagonal().sum() / width)
        inputs = inputs + weights.sum() * moments
    inputs = inputs / inputs.diagonal().mean() + _EMBEDDING_FLOOR * torch.eye(width)
    return inputs, rows + _EMBEDDING_FLOOR * rows.mean()


def _metric(inputs: Tensor, rows: Tensor, outputs: Tensor | None) -> Metric:
    order = inputs.diagonal().argsort(descending=True, stable=True)
    factor, damping = damped_factor(inputs[order][:, order], INPUT_DAMPING)
    if outputs is None:
        weight = rows.clamp(min=1e-30).sqrt().numpy()
        feedback = np.zeros((0, 0), dtype=np.float32)
    else:
        feedback, weight = dependent_trellis.row_feedback(
            damped_factor(outputs, OUTPUT_DAMPING, torch.float32)[0].numpy()
        )
    col = factor.diagonal().numpy().copy()
    row = (1 / weight).astype(np.float32)
    return Metric(order.numpy(), factor.numpy(), feedback, weight, row, col, rows.numpy(), damping)


def damped_factor(
    moments: Tensor, damping: float, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, float]:
    """Upper U [n, n] float32 with (M + damping * mean diag)^-1 = U^T U, and the damping it took, grown tenfold while
    the factorisation fails. Inputs that are always 0 get a diagonal of 1. Raises BnError (exit 3) when none does."""
    m = moments.to(dtype)
    diagonal = m.diagonal()
    mean = float(diagonal.mean()) or 1.0
    dead = diagonal <= 0
    while damping < 1e6:
        damped = m.clone()
        damped.diagonal().masked_fill_(dead, mean).add_(damping * mean)
        upper = cholesky.inverse_factor(damped)
        if upper is not None:
            return upper.float().contiguous(), damping
        damping *= 10
    raise bad_input("no damping makes the second moments invertible", "--exclude the layer")
