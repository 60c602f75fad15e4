"""BLEU of token ids, the same figures as NLTK and sacrebleu, many sentences at a time.

>>> from bntools.tools.bleu_gpu import bleu_scores, bleu_stats
>>> scores = bleu_scores(bleu_stats([[1, 2, 3, 4, 5]], [[[1, 2, 3, 4, 6]]]))
>>> round(float(scores[0]), 3)
0.669
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.tools.bleu_gpu.reward import BleuReward
    from bntools.tools.bleu_gpu.scores import bleu_scores, signature
    from bntools.tools.bleu_gpu.stats import bleu_stats, matrix_stats, prefix_stats, self_stats

__all__ = [
    "BleuReward",
    "bleu_scores",
    "bleu_stats",
    "matrix_stats",
    "prefix_stats",
    "self_stats",
    "signature",
]

__getattr__ = lazily(
    __name__,
    {
        "BleuReward": ".reward",
        "bleu_scores": ".scores",
        "bleu_stats": ".stats",
        "matrix_stats": ".stats",
        "prefix_stats": ".stats",
        "self_stats": ".stats",
        "signature": ".scores",
    },
)
