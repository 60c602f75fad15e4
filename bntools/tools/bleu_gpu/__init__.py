"""BLEU of token ids, the same figures as NLTK and sacrebleu, many sentences at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bntools.tools.bleu_gpu.reward import BleuReward
    from bntools.tools.bleu_gpu.scores import bleu_scores, signature
    from bntools.tools.bleu_gpu.stats import bleu_stats, matrix_stats, prefix_stats, self_stats

_HOME = {
    "BleuReward": "reward", "bleu_scores": "scores", "signature": "scores", "bleu_stats": "stats",
    "matrix_stats": "stats", "prefix_stats": "stats", "self_stats": "stats",
}  # fmt: skip

__all__ = [
    "BleuReward",
    "bleu_scores",
    "bleu_stats",
    "matrix_stats",
    "prefix_stats",
    "self_stats",
    "signature",
]


def __getattr__(name: str) -> Any:
    """Import on first use: the command line shows its help without torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
