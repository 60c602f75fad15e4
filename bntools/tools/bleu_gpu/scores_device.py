"""BLEU from its statistics in torch operations, for a GPU: nothing is read back by the host."""

from __future__ import annotations

import sys
from itertools import pairwise

import torch
from torch import Tensor

from bntools.tools.bleu_gpu.definition import BEYOND, LOOKS_BEYOND, Definition


def scores(stats: Tensor, chosen: Definition, corpus: bool) -> Tensor:
    """`bleu_scores` of statistics [rows, 2 + 2 orders]: [rows], [rows, vectors] or, with corpus, one row less."""
    return (_sacrebleu if chosen.mode == "sacrebleu" else _nltk)(stats, chosen, corpus)


def _sacrebleu(stats: Tensor, chosen: Definition, corpus: bool) -> Tensor:
    table = stats.to(torch.float64)
    table = table.sum(0, keepdim=True) if corpus else table
    orders, smoothing = chosen.orders, chosen.smoothing
    hyp_len, ref_len = table[:, 0], table[:, 1]
    correct, total = table[:, 2 : 2 + orders].clone(), table[:, 2 + orders :].clone()
    matched = correct.any(1)
    if smoothing == "add-k":
        correct[:, 1:] += chosen.value
        total[:, 1:] += chosen.value
    reached = (total != 0).cumprod(1).bool()
    zero = reached & (correct == 0)
    precision = torch.where(reached, correct / total, 0.0)
    if smoothing == "exp":
        precision = torch.where(zero, 0.5 ** zero.cumsum(1) / total, precision)
    elif smoothing == "floor":
        precision = torch.where(zero, chosen.value / total, precision)
    count = reached.sum(1, keepdim=True) if chosen.effective else torch.full_like(hyp_len, orders)[:, None]
    used = torch.arange(orders, device=stats.device) < count
    mean = torch.where(used, precision.log(), 0.0).sum(1) / count[:, 0]
    penalty = torch.where(hyp_len < ref_len, (1 - ref_len / hyp_len).exp(), 1.0)
    scores = torch.where(matched, penalty * mean.exp(), 0.0)
    return scores[0] if corpus else scores


def _nltk(stats: Tensor, chosen: Definition, corpus: bool) -> Tensor:
    orders, need = chosen.orders, max(map(len, chosen.vectors))
    table = stats.to(torch.float64)
    matches, grams = table[:, 2 : 2 + orders], table[:, 2 + orders :]
    lengths, counts = table[:, :2], grams.clamp(min=1)
    top = (
        matches[:, BEYOND - 1] / counts[:, BEYOND - 1] if chosen.smoothing in LOOKS_BEYOND else matches[:, 0]
    )
    if corpus:
        lengths, matches, counts = (x.sum(0, keepdim=True) for x in (lengths, matches, counts))
        grams, top = grams[-1:], top[-1:]
    hyp_len, ref_len = lengths[:, 0], lengths[:, 1]
    precision = _smooth(chosen, matches[:, :need], counts[:, :need], grams, hyp_len, top)
    logs = torch.where(precision > 0, precision.log(), 0.0)
    logs = torch.where(precision.isnan(), precision, logs)
    penalty = torch.where(hyp_len > ref_len, 1.0, (1 - ref_len / hyp_len).exp())
    columns = [penalty * _weighted(logs, v, hyp_len, chosen.auto_reweigh).exp() for v in chosen.vectors]
    scores = torch.where(matches[:, :1] > 0, torch.stack(columns, 1), 0.0)
    scores = scores if chosen.several else scores[:, 0]
    return scores[0] if corpus else scores


def _weighted(logs: Tensor, vector: tuple[float, ...], hyp_len: Tensor, auto_reweigh: bool) -> Tensor:
    """[rows] sum of weight * log; auto_reweigh: below 4 tokens the default weights are uniform over as many orders."""
    # the weights stay numbers of Python: a tensor of them would be a copy from the host, which no CUDA graph takes
    total = sum(
        (weight * column for weight, column in zip(vector, logs.unbind(1), strict=False)), hyp_len * 0
    )
    if not auto_reweigh or vector != (0.25,) * 4:
        return total
    order = torch.arange(logs.shape[1], device=logs.device)
    few = torch.where(order < hyp_len[:, None], logs, 0.0).sum(1) / hyp_len.clamp(min=1)
    return torch.where(hyp_len < 4, few, total)


def _smooth(
    chosen: Definition, matches: Tensor, counts: Tensor, grams: Tensor, hyp_len: Tensor, top: Tensor
) -> Tensor:
    """Precisions [rows, orders] under one of NLTK's methods."""
    smoothing = chosen.smoothing
    precision, zero = matches / counts, matches == 0
    if smoothing == "method0":
        return torch.where(zero, sys.float_info.min, precision)
    if smoothing == "method1":
        return torch.where(zero, chosen.value / counts, precision)
    if smoothing == "method2":
        return torch.cat([precision[:, :1], (matches[:, 1:] + 1) / (counts[:, 1:] + 1)], 1)
    halves = 0.5 ** zero.cumsum(1)
    if smoothing == "method3":
        return torch.where(zero, halves / counts, precision)
    if smoothing in ("method4", "method7"):
        longer = zero & (hyp_len > 1)[:, None]
        precision = torch.where(longer, halves * hyp_len.log()[:, None] / chosen.k / counts, precision)
    if smoothing in ("method5", "method7"):
        return _neighbours(precision, top)
    return _interpolated(precision, matches, grams, chosen.alpha) if smoothing == "method6" else precision


def _neighbours(precision: Tensor, top: Tensor) -> Tensor:
    """method5: the mean of the smoothed order below, the order itself and the one above; `top` above the last."""
    columns = [*precision.unbind(1), top]
    before = columns[0] + 1
    smooth = []
    for here, above in pairwise(columns):
        before = (before + here + above) / 3
        smooth.append(before)
    return torch.stack(smooth, 1)


def _interpolated(precision: Tensor, matches: Tensor, grams: Tensor, alpha: float) -> Tensor:
    """method6: each order from the third on, drawn towards the ratio of the two below; NaN where p_3 is zero."""
    columns = list(precision.unbind(1))
    for i in range(2, len(columns)):
        two, one = columns[i - 2], columns[i - 1]
        prior = torch.where(two == 0, 0.0, one**2 / two)
        columns[i] = (matches[:, i] + alpha * prior) / (grams[:, i] + alpha)
    smooth = torch.stack(columns, 1)
    return torch.where(precision[:, 2:3] == 0, torch.nan, smooth)
