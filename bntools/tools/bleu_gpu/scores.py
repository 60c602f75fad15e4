"""BLEU from its statistics, to the letter of NLTK or of sacrebleu."""

from __future__ import annotations

import torch
from torch import Tensor

from bntools.core.errors import usage
from bntools.tools.bleu_gpu import scores_cpu, scores_device
from bntools.tools.bleu_gpu.definition import Weights, define, signature

__all__ = ["bleu_scores", "signature"]


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
    options = (weights, effective_order, auto_reweigh, corpus, value, alpha, k)
    chosen = define(stats.shape[-1] // 2 - 1, mode, smoothing, *options)
    leading, rows = stats.shape[:-1], stats.reshape(-1, stats.shape[-1])
    if rows.device.type == "cpu":
        scores = torch.from_numpy(scores_cpu.scores(rows.numpy(), chosen, corpus))
    else:
        scores = scores_device.scores(rows, chosen, corpus)
    return scores if corpus else scores.reshape(*leading, *scores.shape[1:])
