"""Compiled loops of `scores_cpu`: one row of statistics after another, as NLTK and sacrebleu define it."""

# pyright: reportArgumentType=false
from __future__ import annotations

import sys

import numba
import numpy as np

from bntools.tools.bleu_gpu.definition import BEYOND

SMALLEST = sys.float_info.min
EXP, FLOOR, ADD_K = 0, 1, 2


@numba.njit(cache=True, nogil=True, error_model="numpy")
def nltk_rows(stats, method, vectors, default, constants, out):
    """out [rows, vectors] = scores of stats [rows, 2 + 2 orders] one by one.

    method: 0 to 7. vectors [n, need]: weights, filled up with 0; default [n]: those auto_reweigh is for.
    constants: epsilon, alpha, k.
    """
    orders = stats.shape[1] // 2 - 1
    matches, counts, grams, precision = np.empty(orders), np.empty(orders), np.empty(orders), np.empty(orders)
    for b in range(len(stats)):
        for i in range(orders):
            matches[i], grams[i] = stats[b, 2 + i], stats[b, 2 + orders + i]
            counts[i] = max(grams[i], 1.0)
        lengths = np.float64(stats[b, 0]), np.float64(stats[b, 1])
        top = matches[BEYOND - 1] / counts[BEYOND - 1] if method == 5 or method == 7 else 0.0
        smooth(method, matches, counts, grams, lengths[0], top, constants, precision[: vectors.shape[1]])
        weigh(matches[0], precision, lengths, vectors, default, out[b])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def nltk_corpus(stats, method, vectors, default, constants, out):
    """out [1, vectors] = the score of all rows: sums, but methods 5 to 7 look at the last row (NLTK)."""
    orders = stats.shape[1] // 2 - 1
    matches, counts, grams, precision = np.zeros(orders), np.zeros(orders), np.zeros(orders), np.empty(orders)
    hyp_len, ref_len, top = 0.0, 0.0, 0.0
    for b in range(len(stats)):
        hyp_len += stats[b, 0]
        ref_len += stats[b, 1]
        for i in range(orders):
            grams[i] = stats[b, 2 + orders + i]
            matches[i] += stats[b, 2 + i]
            counts[i] += max(grams[i], 1.0)
        if method == 5 or method == 7:
            top = stats[b, 1 + BEYOND] / max(grams[BEYOND - 1], 1.0)
    smooth(method, matches, counts, grams, hyp_len, top, constants, precision[: vectors.shape[1]])
    weigh(matches[0], precision, (hyp_len, ref_len), vectors, default, out[0])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def smooth(method, matches, counts, grams, hyp_len, top, constants, precision):
    """precision [need] under one of NLTK's methods (Chen & Cherry 2014)."""
    epsilon, alpha, k = constants
    half = 1.0
    for i in range(len(precision)):
        zero = matches[i] == 0
        half = half / 2 if zero else half
        precision[i] = matches[i] / counts[i]
        if method == 2 and i > 0:
            precision[i] = (matches[i] + 1) / (counts[i] + 1)
        elif zero and method == 0:
            precision[i] = SMALLEST
        elif zero and method == 1:
            precision[i] = epsilon / counts[i]
        elif zero and method == 3:
            precision[i] = half / counts[i]
        elif zero and (method == 4 or method == 7) and hyp_len > 1:
            precision[i] = half * np.log(hyp_len) / k / counts[i]
    if method == 5 or method == 7:
        neighbours(precision, top)
    if method == 6:
        interpolate(precision, matches, grams, alpha)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def neighbours(precision, top):
    """method5: the mean of the smoothed order below, the order itself and the one above; `top` above the last."""
    before = precision[0] + 1
    for i in range(len(precision)):
        above = precision[i + 1] if i + 1 < len(precision) else top
        before = (before + precision[i] + above) / 3
        precision[i] = before


@numba.njit(cache=True, nogil=True, error_model="numpy")
def interpolate(precision, matches, grams, alpha):
    """method6: each order from the third on, drawn towards the ratio of the two below; NaN where p_3 is zero."""
    none = precision[2] == 0
    for i in range(2, len(precision)):
        two, one = precision[i - 2], precision[i - 1]
        prior = 0.0 if two == 0 else one * one / two
        precision[i] = (matches[i] + alpha * prior) / (grams[i] + alpha)
    if none:
        precision[:] = np.nan


@numba.njit(cache=True, nogil=True, error_model="numpy")
def weigh(matches, precision, lengths, vectors, default, out):
    """out [vectors] = penalty * exp(sum of weight * log precision); precisions of 0 are passed over (NLTK)."""
    hyp_len, ref_len = lengths
    if matches == 0:
        out[:] = 0.0
        return
    need = vectors.shape[1]
    for i in range(need):
        precision[i] = np.log(precision[i]) if precision[i] != 0 else 0.0
    penalty = 1.0 if hyp_len > ref_len else np.exp(1 - ref_len / hyp_len)
    for v in range(len(vectors)):
        total = 0.0
        if default[v] and hyp_len < 4:
            for i in range(min(need, int(hyp_len))):
                total += precision[i] / hyp_len
        else:
            for i in range(need):
                total += vectors[v, i] * precision[i]
        out[v] = penalty * np.exp(total)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def sacrebleu_row(hyp_len, ref_len, correct, total, smoothing, add, effective):
    """Score of one row of statistics; `add`: the value of floor or add-k."""
    matches, logs, reached, half = 0.0, 0.0, 0, 1.0
    for i in range(len(correct)):
        matches += correct[i]
    for i in range(len(correct)):
        more = add if smoothing == ADD_K and i > 0 else 0.0
        hits, grams = correct[i] + more, total[i] + more
        if grams == 0:
            break
        reached += 1
        precision = hits / grams
        if hits == 0 and smoothing == EXP:
            half /= 2
            precision = half / grams
        elif hits == 0 and smoothing == FLOOR:
            precision = add / grams
        logs += np.log(precision) if precision > 0 else -np.inf
    if matches == 0 or (reached < len(correct) and not effective):
        return 0.0
    penalty = np.exp(1 - ref_len / hyp_len) if hyp_len < ref_len else 1.0
    return penalty * np.exp(logs / (reached if effective else len(correct)))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def sacrebleu_rows(stats, smoothing, add, effective, out):
    """out [rows] = scores of stats [rows, 2 + 2 orders] one by one."""
    orders = stats.shape[1] // 2 - 1
    for b in range(len(stats)):
        row = stats[b]
        out[b] = sacrebleu_row(
            row[0], row[1], row[2 : 2 + orders], row[2 + orders :], smoothing, add, effective
        )
