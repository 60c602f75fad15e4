"""Which layers of a next-scale model need their history: ScaleKV's roles and budgets, and whether roles are there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEAST_SPREAD, LEAST_AGREEMENT = 0.1, 0.5
"""Deviation over mean of the index among layers, rank correlation of calibration halves: below, no roles."""
REFINER, DECAY = 0.8, 0.2
"""A refiner's budget at the first scale over the uniform one, and what it loses of that by the last."""


@dataclass(frozen=True)
class ScaleBudgets:
    """index [layers, scales], drafter [layers, scales] bool, tokens [layers, scales]: history kept for each scale."""

    index: Floats
    drafter: NDArray[np.bool_]
    tokens: NDArray[np.int64]
    spread: float
    agreement: float
    roles: bool


def attention_index(mass: Floats, map_of: NDArray[np.int64], top: int) -> Floats:
    """ASI [layers, scales] (ScaleKV, arXiv 2505.19602): share of the own map times that of the top of the history.

    mass [layers, scales, tokens]: mean attention of the queries of a scale; map_of [tokens]: scale of each. The first
    scale has no history, and index 0.
    """
    layers, scales, _ = mass.shape
    result = np.zeros((layers, scales))
    for scale in range(1, scales):
        own = mass[:, scale, map_of == scale].sum(1)
        history = np.sort(mass[:, scale, map_of < scale], axis=1)[:, ::-1]
        result[:, scale] = own * history[:, :top].sum(1)
    return result


def drafters(index: Floats, count: int) -> NDArray[np.bool_]:
    """The `count` pairs of layer and scale, the first scale left out, with the lowest z-score over layers."""
    spread = index.std(0)
    z = (index - index.mean(0)) / np.where(spread > 0, spread, 1)
    z[:, 0] = np.inf
    chosen = np.zeros(index.shape, bool)
    chosen.reshape(-1)[np.argsort(z.reshape(-1), kind="stable")[:count]] = True
    return chosen


def shared_out(total: int, weights: Floats, most: int) -> NDArray[np.int64]:
    """Whole numbers in the ratio of weights, none over `most`, that sum to `total` (or to all there is room for).

    What one cannot take, since no more history exists, the others get.
    """
    total = min(total, most * len(weights))
    result = np.zeros(len(weights), np.int64)
    while (left := total - int(result.sum())) > 0:
        free = result < most
        share = np.where(free, weights, 0) / max(weights[free].sum(), 1e-12) * left
        more = np.minimum(np.floor(share).astype(np.int64), most - result)
        if not more.any():
            order = np.argsort(-(share - np.floor(share)) - 1e-9 * free, kind="stable")
            more[[place for place in order if free[place]][:left]] = 1
        result += more
    return result


def allot(
    index: Floats, drafting: NDArray[np.bool_], history: NDArray[np.int64], budget: float
) -> NDArray[np.int64]:
    """Tokens of history kept for each layer and scale; a scale's sum is that of `budget` for every layer alike."""
    layers, scales = index.shape
    result = np.zeros((layers, scales), np.int64)
    for scale in range(1, scales):
        total = round(budget * int(history[scale]) * layers)
        refining = REFINER - DECAY * scale / max(scales - 1, 1)
        number = int(drafting[:, scale].sum())
        weights = np.full(layers, refining)
        weights[drafting[:, scale]] = (layers - refining * (layers - number)) / max(number, 1)
        result[:, scale] = shared_out(total, weights, int(history[scale]))
    return result


def rank_correlation(one: Floats, other: Floats) -> float:
    """Spearman's, without ties; 0 where either is constant."""
    ranks = [values.argsort().argsort() for values in (one, other)]
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def plan_budgets(
    halves: tuple[Floats, Floats],
    map_of: NDArray[np.int64],
    budget: float,
    *,
    top: int = 16,
    strict: bool = False,
) -> ScaleBudgets:
    """Budgets from the mean attention [layers, scales, tokens] of two halves of a calibration.

    Two pairs of layer and scale in six are drafters where roles are there; where layers differ by less than a tenth, or
    the halves do not agree, every layer gets the same. strict: roles in any case, as in the paper.
    """
    mass = (halves[0] + halves[1]) / 2
    layers, scales, _ = mass.shape
    index = attention_index(mass, map_of, top)
    history = np.array([int((map_of < scale).sum()) for scale in range(scales)])
    parts = [attention_index(half, map_of, top)[:, 1:].reshape(-1) for half in halves]
    spread = float(np.mean(index[:, 1:].std(0) / np.maximum(index[:, 1:].mean(0), 1e-12)))
    agreement = rank_correlation(*parts)
    roles = spread >= LEAST_SPREAD and agreement >= LEAST_AGREEMENT
    count = round(layers * (scales - 1) / 3) if roles or strict else 0
    drafting = drafters(index, count)
    if count:
        tokens = allot(index, drafting, history, budget)
    else:
        tokens = np.stack(
            [shared_out(round(budget * int(n) * layers), np.ones(layers), int(n)) for n in history], 1
        )
    return ScaleBudgets(index, drafting, tokens, spread, agreement, roles)
