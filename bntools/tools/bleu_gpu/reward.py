"""BLEU as a reward that GRPO-style trainers call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bntools.core.errors import usage
from bntools.tools.bleu_gpu.scores import bleu_scores, signature
from bntools.tools.bleu_gpu.stats import bleu_stats

Encode = Callable[[str], Sequence[int]]


class BleuReward:
    """Callable with TRL's signature for reward functions: (prompts, completions, completion_ids, **columns).

    references: the dataset column with the references of each prompt: ids, texts, or a list of either for
    several references. encode: text to ids, needed where references are texts, or where the trainer passes no
    completion_ids. Options of `bleu_stats` and `bleu_scores`; the default, sacrebleu's effective order with
    exp smoothing, is dense and 0 only where nothing matches. Returns one float a completion, in 0..1.
    """

    def __init__(
        self,
        references: str = "references",
        encode: Encode | None = None,
        mode: str = "sacrebleu",
        smoothing: str | None = None,
        max_n: int = 4,
        eos_id: int | None = None,
        pad_id: int | None = None,
        **options: Any,
    ) -> None:
        self.references, self.encode = references, encode
        self.mode, self.smoothing, self.max_n, self.options = mode, smoothing, max_n, options
        self.ends: dict[str, int | None] = {"eos_id": eos_id, "pad_id": pad_id}
        self.signature = signature(mode, smoothing, max_n, refs="var")
        self.__name__ = "bleu"  # what trainers log a reward under

    def __call__(
        self,
        prompts: Any = None,
        completions: Sequence[Any] | None = None,
        completion_ids: Sequence[Sequence[int]] | None = None,
        **columns: Any,
    ) -> list[float]:
        """Rewards of a batch. Raises BnError where references or ids are missing."""
        if self.references not in columns:
            raise usage(f"the batch has no column {self.references!r}", "BleuReward(references=COLUMN)")
        if completion_ids is None:
            completion_ids = [self._ids(_text(completion)) for completion in completions or []]
        refs = [self._several(given) for given in columns[self.references]]
        stats = bleu_stats(list(completion_ids), refs, max_n=self.max_n, **self.ends)
        return bleu_scores(stats, self.mode, self.smoothing, **self.options).tolist()

    def _several(self, given: Any) -> list[Any]:
        """A row's references as lists of ids."""
        if isinstance(given, str) or not len(given) or not isinstance(given[0], str | Sequence):
            given = [given]
        return [self._ids(one) if isinstance(one, str) else one for one in given]

    def _ids(self, text: str) -> list[int]:
        if self.encode is None:
            raise usage("a text, and no way to make ids of it", "BleuReward(encode=tokenizer.encode)")
        return list(self.encode(text))


def _text(completion: Any) -> str:
    """A completion, or the content of its messages where it is a conversation."""
    if isinstance(completion, str):
        return completion
    return "".join(message["content"] for message in completion)
