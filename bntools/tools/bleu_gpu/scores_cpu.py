"""BLEU from its statistics in numpy arrays, by compiled loops; torch is not imported."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.tools.bleu_gpu import scores_jit
from bntools.tools.bleu_gpu.definition import NLTK, Definition

Stats = NDArray[np.number[Any]]
Scores = NDArray[np.float64]

_SACREBLEU = {"exp": scores_jit.EXP, "floor": scores_jit.FLOOR, "add-k": scores_jit.ADD_K, "none": -1}


def scores(stats: Stats, chosen: Definition, corpus: bool) -> Scores:
    """`bleu_scores` of statistics [rows, 2 + 2 orders]: [rows], [rows, vectors] or, with corpus, one row less."""
    wide = np.float64 if stats.dtype.kind == "f" else np.int64
    stats = np.ascontiguousarray(stats, stats.dtype if stats.dtype == np.int32 else wide)
    if chosen.mode == "sacrebleu":
        table = stats.sum(0, dtype=wide, keepdims=True) if corpus else stats
        result = np.empty(len(table))
        smoothing = _SACREBLEU[chosen.smoothing]
        scores_jit.sacrebleu_rows(table, smoothing, chosen.value, chosen.effective, result)
    else:
        result = _nltk(stats, chosen, corpus)
    return np.asarray(result[0]) if corpus else result


def _nltk(stats: Stats, chosen: Definition, corpus: bool) -> Scores:
    vectors, default = _weights(chosen.vectors, chosen.auto_reweigh)
    constants = float(chosen.value), float(chosen.alpha), float(chosen.k)
    result = np.empty((1 if corpus else len(stats), len(vectors)))
    loop = scores_jit.nltk_corpus if corpus else scores_jit.nltk_rows
    loop(stats, NLTK.index(chosen.smoothing), vectors, default, constants, result)
    return result if chosen.several else result[:, 0]


@functools.lru_cache(16)
def _weights(vectors: tuple[tuple[float, ...], ...], auto_reweigh: bool) -> tuple[Scores, NDArray[np.bool_]]:
    """Weights [n, orders] filled up with 0, and which of them auto_reweigh is for [n]."""
    need = max(map(len, vectors))
    filled = np.array([vector + (0.0,) * (need - len(vector)) for vector in vectors])
    return filled, np.array([auto_reweigh and vector == (0.25,) * 4 for vector in vectors])


def folded(stats: Stats, mode: str = "nltk") -> NDArray[np.int64]:
    """Two rows [2, 2 + 2 N] (or the one there is) with the corpus score of all rows, for streams of any length.

    The last row is kept for NLTK's methods 5 to 7; in the sum of the others each sentence counts at least one
    n-gram an order, as NLTK has it. May be folded again with rows behind it.
    """
    rows = stats.astype(np.int64)
    if len(rows) < 2:
        return rows
    if mode == "nltk":
        width = stats.shape[1] // 2 + 1
        rows[:-1, width:] = np.maximum(rows[:-1, width:], 1)
    return np.stack([rows[:-1].sum(0), rows[-1]])
