"""BLEU from its statistics, to the letter of NLTK or of sacrebleu."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from bntools.core.errors import usage

Weights = Sequence[float] | Sequence[Sequence[float]]

NLTK = tuple(f"method{i}" for i in range(8))
SACREBLEU = {"exp": None, "floor": 0.1, "add-k": 1.0, "none": None}
"""Smoothing of sacrebleu and the default value of each."""
BEYOND = 5
"""The order method5 and method7 look at above the highest, whatever the weights (NLTK)."""


def bleu_scores(
    stats: Tensor,
    mode: str = "nltk",
    smoothing: str | None = None,
    weights: Weights | None = None,
    effective_order: bool | None = None,
    auto_reweigh: bool = False,
    corpus: bool = False,
    value: float | None = None,
    alpha: float = 5,
    k: float = 5,
) -> Tensor:
    """BLEU in 0..1, float64: [...], or a scalar with `corpus`; a list of weights adds a last dimension.

    stats: [..., 2 + 2 N] of `bleu_stats`; nothing of them is read back from a GPU.
    mode "nltk": smoothing method0 (default) to method7 of Chen & Cherry 2014 as NLTK 3.10 has them;
    weights default to uniform over N orders, over N - 1 for method5 and method7,
    which need N >= 5. mode "sacrebleu": exp (default), floor, add-k, none as sacrebleu 2.6;
    effective_order defaults to True for sentences, False for a corpus. `value`: the epsilon of method1, floor
    or add-k; alpha: method6; k: method4. NLTK's corpus quirks stay: a sentence counts at least one n-gram of
    each order; method5 to 7 look at the last sentence, so a corpus must be given row by row, not summed.
    Where NLTK's method6 raises (no matching trigram), NaN. Raises BnError on options that do not fit.
    """
    if stats.ndim < 2 or stats.shape[-1] < 4 or stats.shape[-1] % 2:
        raise usage(f"stats have shape {list(stats.shape)}", "give [batch, 2 + 2 * orders]")
    smoothing = smoothing or _default(mode)
    _fits(mode, smoothing, weights, effective_order, auto_reweigh)
    leading, stats = stats.shape[:-1], stats.flatten(0, -2)
    if mode == "sacrebleu":
        effective = not corpus if effective_order is None else effective_order
        scores = _sacrebleu(stats, smoothing, effective, corpus, value)
    else:
        constants = (0.1 if value is None else value, alpha, k)
        scores = _nltk(stats, smoothing, weights, auto_reweigh, corpus, constants)
    return scores if corpus else scores.unflatten(0, leading)


def folded(stats: Tensor, mode: str = "nltk") -> Tensor:
    """Two rows [2, 2 + 2 N] int64 (or the one there is) with the corpus score of all rows, for streams of any length.

    The last row is kept for NLTK's methods 5 to 7; in the sum of the others each sentence counts at least one
    n-gram an order, as NLTK has it. May be folded again with rows behind it.
    """
    rows, orders = stats.to(torch.int64), stats.shape[1] // 2 - 1
    if mode == "nltk":
        rows = torch.cat([rows[:, : 2 + orders], rows[:, 2 + orders :].clamp(min=1)], 1)
    return torch.cat([rows[:-1].sum(0, keepdim=True), stats[-1:].to(torch.int64)]) if len(rows) > 1 else stats


def signature(
    mode: str = "nltk",
    smoothing: str | None = None,
    max_n: int = 4,
    refs: int | str = 1,
    effective_order: bool | None = None,
    corpus: bool = False,
    value: float | None = None,
) -> str:
    """What a score depends on, in one line to quote beside it, in the manner of sacrebleu's signatures."""
    name = smoothing or _default(mode)
    default = 0.1 if name == "method1" else SACREBLEU.get(name)
    if default is not None:
        name += f"[{default if value is None else value:.2f}]"
    effective = mode == "sacrebleu" and (not corpus if effective_order is None else effective_order)
    level = "corpus" if corpus else "sentence"
    eff = "yes" if effective else "no"
    return f"nrefs:{refs}|level:{level}|eff:{eff}|tok:ids|order:{max_n}|smooth:{name}|mode:{mode}"


def _default(mode: str) -> str:
    if mode not in ("nltk", "sacrebleu"):
        raise usage(f"unknown mode {mode!r}", "nltk or sacrebleu")
    return "method0" if mode == "nltk" else "exp"


def _fits(
    mode: str, smoothing: str, weights: Weights | None, effective_order: bool | None, auto_reweigh: bool
) -> None:
    known = NLTK if mode == "nltk" else tuple(SACREBLEU)
    if smoothing not in known:
        raise usage(f"{mode} has no smoothing {smoothing!r}", f"one of {', '.join(known)}")
    if mode == "nltk" and effective_order:
        raise usage("NLTK has no effective order", "use mode sacrebleu")
    if mode == "sacrebleu" and (weights is not None or auto_reweigh):
        raise usage("sacrebleu has no weights", "use mode nltk")


def _sacrebleu(stats: Tensor, smoothing: str, effective: bool, corpus: bool, value: float | None) -> Tensor:
    table = stats.to(torch.float64)
    table = table.sum(0, keepdim=True) if corpus else table
    orders = stats.shape[1] // 2 - 1
    hyp_len, ref_len = table[:, 0], table[:, 1]
    correct, total = table[:, 2 : 2 + orders].clone(), table[:, 2 + orders :].clone()
    matched = correct.any(1)
    add = SACREBLEU[smoothing] if value is None else value
    if smoothing == "add-k":
        correct[:, 1:] += add
        total[:, 1:] += add
    reached = (total != 0).cumprod(1).bool()
    zero = reached & (correct == 0)
    precision = torch.where(reached, correct / total, 0.0)
    if smoothing == "exp":
        precision = torch.where(zero, 0.5 ** zero.cumsum(1) / total, precision)
    elif smoothing == "floor":
        precision = torch.where(zero, add / total, precision)
    count = reached.sum(1, keepdim=True) if effective else torch.full_like(hyp_len, orders)[:, None]
    used = torch.arange(orders, device=stats.device) < count
    mean = torch.where(used, precision.log(), 0.0).sum(1) / count[:, 0]
    penalty = torch.where(hyp_len < ref_len, (1 - ref_len / hyp_len).exp(), 1.0)
    scores = torch.where(matched, penalty * mean.exp(), 0.0)
    return scores[0] if corpus else scores


def _nltk(
    stats: Tensor,
    smoothing: str,
    weights: Weights | None,
    auto_reweigh: bool,
    corpus: bool,
    constants: tuple[float, float, float],
) -> Tensor:
    orders = stats.shape[1] // 2 - 1
    beyond = smoothing in ("method5", "method7")
    if beyond and orders < BEYOND:
        raise usage(f"{smoothing} needs {BEYOND} orders, the statistics have {orders}", "max_n=5")
    vectors, several = _weights(weights, orders - beyond)
    need = max(len(vector) for vector in vectors)
    if need > orders or (smoothing == "method6" and need < 3):
        raise usage(f"{need} weights do not fit {orders} orders with {smoothing}", f"max_n={max(need, 3)}")
    table = stats.to(torch.float64)
    found, grams = table[:, 2 : 2 + orders], table[:, 2 + orders :]
    lengths, counts = table[:, :2], grams.clamp(min=1)
    top = found[:, BEYOND - 1] / counts[:, BEYOND - 1] if beyond else found[:, 0]
    if corpus:
        lengths, found, counts = (x.sum(0, keepdim=True) for x in (lengths, found, counts))
        grams, top = grams[-1:], top[-1:]
    hyp_len, ref_len = lengths[:, 0], lengths[:, 1]
    precision = _smooth(smoothing, found[:, :need], counts[:, :need], grams, hyp_len, top, constants)
    logs = torch.where(precision > 0, precision.log(), 0.0)
    logs = torch.where(precision.isnan(), precision, logs)
    penalty = torch.where(hyp_len > ref_len, 1.0, (1 - ref_len / hyp_len).exp())
    columns = [penalty * _weighted(logs, v, hyp_len, auto_reweigh).exp() for v in vectors]
    scores = torch.where(found[:, :1] > 0, torch.stack(columns, 1), 0.0)
    scores = scores if several else scores[:, 0]
    return scores[0] if corpus else scores


def _weights(weights: Weights | None, orders: int) -> tuple[list[tuple[float, ...]], bool]:
    """Weight vectors, and whether the caller gave a list of them."""
    if weights is None:
        return [(1 / orders,) * orders], False
    rows = list(weights)
    if not rows:
        raise usage("no weights", "give one weight for each order")
    if isinstance(rows[0], (int, float)):
        return [tuple(float(w) for w in rows)], False  # type: ignore[arg-type]
    return [tuple(float(w) for w in row) for row in rows], True  # type: ignore[union-attr]


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
    smoothing: str,
    found: Tensor,
    counts: Tensor,
    grams: Tensor,
    hyp_len: Tensor,
    top: Tensor,
    constants: tuple[float, float, float],
) -> Tensor:
    """Precisions [rows, orders] under one of NLTK's methods."""
    epsilon, alpha, k = constants
    precision, zero = found / counts, found == 0
    if smoothing == "method0":
        return torch.where(zero, sys.float_info.min, precision)
    if smoothing == "method1":
        return torch.where(zero, epsilon / counts, precision)
    if smoothing == "method2":
        return torch.cat([precision[:, :1], (found[:, 1:] + 1) / (counts[:, 1:] + 1)], 1)
    halves = 0.5 ** zero.cumsum(1)
    if smoothing == "method3":
        return torch.where(zero, halves / counts, precision)
    if smoothing in ("method4", "method7"):
        longer = zero & (hyp_len > 1)[:, None]
        precision = torch.where(longer, halves * hyp_len.log()[:, None] / k / counts, precision)
    if smoothing in ("method5", "method7"):
        return _neighbours(precision, top)
    return _interpolated(precision, found, grams, alpha) if smoothing == "method6" else precision


def _neighbours(precision: Tensor, top: Tensor) -> Tensor:
    """method5: the mean of the smoothed order below, the order itself and the one above; `top` above the last."""
    columns = [*precision.unbind(1), top]
    before = columns[0] + 1
    smooth = []
    for here, above in pairwise(columns):
        before = (before + here + above) / 3
        smooth.append(before)
    return torch.stack(smooth, 1)


def _interpolated(precision: Tensor, found: Tensor, grams: Tensor, alpha: float) -> Tensor:
    """method6: each order from the third on, drawn towards the ratio of the two below; NaN where p_3 is zero."""
    columns = list(precision.unbind(1))
    for i in range(2, len(columns)):
        two, one = columns[i - 2], columns[i - 1]
        prior = torch.where(two == 0, 0.0, one**2 / two)
        columns[i] = (found[:, i] + alpha * prior) / (grams[:, i] + alpha)
    smooth = torch.stack(columns, 1)
    return torch.where(precision[:, 2:3] == 0, torch.nan, smooth)
