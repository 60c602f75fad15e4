"""BLEU as a reward that GRPO-style trainers call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    exp smoothing, is dense and 0 only where nothing matches. Returns one float a completion, in 0..1; 0 for one without
    a text, None for a row without a reference.
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
    ) -> list[float | None]:
        """Rewards of a batch; None, which trainers pass over, for a row without a reference.

        Raises BnError where the column of references is missing, or a way to make ids.
        """
        if self.references not in columns:
            raise usage(f"the batch has no column {self.references!r}", "BleuReward(references=COLUMN)")
        if completion_ids is None:
            completion_ids = [self._ids(_text(completion)) for completion in completions or []]
        refs = [self._several(row) for row in columns[self.references]]
        scored = [index for index, row in enumerate(refs) if row]
        rewards: list[float | None] = [None] * len(refs)
        if not scored:
            return rewards
        stats = bleu_stats(
            [completion_ids[index] for index in scored], [refs[index] for index in scored],
            max_n=self.max_n, **self.ends,
        )  # fmt: skip
        scores = bleu_scores(stats, self.mode, self.smoothing, **self.options).tolist()
        for index, score in zip(scored, scores, strict=True):
            rewards[index] = score
        return rewards

    def _several(self, row: Any) -> list[Any]:
        """A row's references as lists of ids; a reference that is None is none, so there may be none at all."""
        if row is None:
            return []
        if isinstance(row, str) or not len(row) or not isinstance(row[0], str | Sequence | None):
            row = [row]
        return [self._ids(one) if isinstance(one, str) else one for one in row if one is not None]

    def _ids(self, text: str) -> list[int]:
        if self.encode is None:
            raise usage("a text, and no way to make ids of it", "BleuReward(encode=tokenizer.encode)")
        return list(self.encode(text))


def _text(completion: Any) -> str:
    """A completion as text: of a conversation the contents of its messages, of their parts those that are text."""
    if completion is None:
        return ""
    if isinstance(completion, str):
        return completion
    if isinstance(completion, Mapping):
        return _text(completion.get("content", completion.get("text")))
    return "".join(map(_text, completion))
