"""What a run scores and how: checked once, before any input is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bntools.core.errors import usage
from bntools.tools.bleu_gpu.resample import Score
from bntools.tools.bleu_gpu.scores import BEYOND, bleu_scores, folded, signature

LOOKS_BEYOND = ("method5", "method7")
NOT_SUMMED = ("method5", "method6", "method7")
"""Methods of NLTK that look at the last sentence of a corpus, so that no sum stands for it."""


@dataclass(frozen=True)
class Settings:
    """Options of the definition of BLEU; NLTK's methods by number or name."""

    mode: str = "nltk"
    smoothing: str | None = None
    max_n: int = 4
    weights: tuple[float, ...] | None = None
    effective_order: bool | None = None
    auto_reweigh: bool = False
    value: float | None = None

    def __post_init__(self) -> None:
        if self.mode == "nltk" and self.smoothing and self.smoothing.isdigit():
            object.__setattr__(self, "smoothing", f"method{self.smoothing}")
        if self.smoothing in LOOKS_BEYOND and self.max_n != BEYOND - 1:
            raise usage(
                f"--smoothing {self.smoothing} is defined for --max-n {BEYOND - 1}", f"--max-n {BEYOND - 1}"
            )
        self.scores(torch.zeros(1, 2 + 2 * self.orders, dtype=torch.int32))

    @property
    def orders(self) -> int:
        """Orders the statistics need."""
        return BEYOND if self.smoothing in LOOKS_BEYOND else self.max_n

    def scores(self, stats: Tensor, corpus: bool = False) -> Tensor:
        """`bleu_scores` with these settings."""
        return bleu_scores(
            stats, self.mode, self.smoothing, self.weights, self.effective_order, self.auto_reweigh, corpus,
            self.value,
        )  # fmt: skip

    def signature(self, corpus: bool) -> str:
        """The line to quote beside a score."""
        given = (self.mode, self.smoothing, self.max_n, "var", self.effective_order, corpus, self.value)
        weights = "" if self.weights is None else "|weights:" + ",".join(f"{w:g}" for w in self.weights)
        return signature(*given) + weights + ("|reweigh:yes" if self.auto_reweigh else "")

    def resampling(self, stats: Tensor) -> tuple[Tensor, Score]:
        """Rows whose sums are those of corpora, and the score of such sums. Raises BnError for NLTK's 5 to 7."""
        if self.smoothing in NOT_SUMMED:
            raise usage(f"--bootstrap does not go with --smoothing {self.smoothing}", "--smoothing 0 to 4")
        if self.mode == "nltk":
            width = stats.shape[1] // 2 + 1
            stats = torch.cat([stats[:, :width], stats[:, width:].clamp(min=1)], 1)
            return stats, self.scores
        effective = bool(self.effective_order)
        return stats, lambda sums: bleu_scores(
            sums, "sacrebleu", self.smoothing, effective_order=effective, value=self.value
        )


class Corpus:
    """Statistics of a corpus of any length: two rows, or all of them where they will be resampled."""

    def __init__(self, mode: str, keep: bool) -> None:
        self.mode, self.keep, self.parts, self.count = mode, keep, list[Tensor](), 0

    def add(self, stats: Tensor) -> None:
        """Take in the next lines."""
        self.count += len(stats)
        self.parts.append(stats)
        if not self.keep:
            self.parts = [folded(torch.cat([x.to(torch.int64) for x in self.parts]), self.mode)]

    def stats(self) -> Tensor:
        """What to score as one corpus."""
        return torch.cat(self.parts)


def measured(interval: Any) -> dict[str, float]:
    """An uncertain number of a report."""
    return {"value": interval.value, "low": interval.low, "high": interval.high}
