"""What a run scores and how: checked once, before any input is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bntools.core.errors import usage
from bntools.tools.bleu_gpu.definition import BEYOND, LOOKS_BEYOND, Definition, define, signature
from bntools.tools.bleu_gpu.resample import Score
from bntools.tools.bleu_gpu.scores_cpu import Scores, Stats, folded, scores

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
        self.definition(corpus=False)

    @property
    def orders(self) -> int:
        """Orders the statistics need."""
        return BEYOND if self.smoothing in LOOKS_BEYOND else self.max_n

    def definition(self, corpus: bool) -> Definition:
        """These settings with the defaults of the mode. Raises BnError (exit 2)."""
        given = (self.mode, self.smoothing, self.weights, self.effective_order, self.auto_reweigh)
        return define(self.orders, *given, corpus, self.value)

    def scores(self, stats: Stats, corpus: bool = False) -> Scores:
        """`bleu_scores` with these settings, of numpy arrays."""
        return scores(stats, self.definition(corpus), corpus)

    def signature(self, corpus: bool) -> str:
        """The line to quote beside a score."""
        given = (self.mode, self.smoothing, self.max_n, "var", self.effective_order, corpus, self.value)
        weights = "" if self.weights is None else "|weights:" + ",".join(f"{w:g}" for w in self.weights)
        return signature(*given) + weights + ("|reweigh:yes" if self.auto_reweigh else "")

    def refuse_resampling(self) -> None:
        """Raise BnError (exit 2) where no sum of rows stands for a corpus: NLTK's methods 5 to 7."""
        if self.smoothing in NOT_SUMMED:
            raise usage(f"--bootstrap does not go with --smoothing {self.smoothing}", "--smoothing 0 to 4")

    def resampling(self, stats: Stats) -> tuple[Stats, Score]:
        """Rows whose sums are those of corpora, and the score of such sums. Raises BnError for NLTK's 5 to 7."""
        self.refuse_resampling()
        if self.mode == "nltk":
            width = stats.shape[1] // 2 + 1
            stats = np.hstack([stats[:, :width], np.maximum(stats[:, width:], 1)])
            return stats, self.scores
        chosen = self.definition(corpus=True)  # a row of sums is a corpus, though scored as a row
        return stats, lambda sums: scores(sums, chosen, False)


class Corpus:
    """Statistics of a corpus of any length: two rows, or all of them where they will be resampled."""

    def __init__(self, mode: str, keep: bool) -> None:
        self.mode, self.keep, self.parts, self.count = mode, keep, list[Stats](), 0

    def add(self, stats: Stats) -> None:
        """Take in the next lines."""
        self.count += len(stats)
        self.parts.append(stats)
        if not self.keep:
            self.parts = [folded(np.concatenate(self.parts), self.mode)]

    def stats(self) -> Stats:
        """What to score as one corpus."""
        return np.concatenate(self.parts)


def measured(interval: Any) -> dict[str, float]:
    """An uncertain number of a report."""
    return {"value": interval.value, "low": interval.low, "high": interval.high}
