"""Which tokens of a text are scored, and what each is conditioned on: three protocols in common use."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bntools.core.errors import bad_input
from bntools.core.text.tokens import Tokenizer


@dataclass(frozen=True)
class Window:
    """Token ids of one forward pass; the tokens from index `first` on are scored, each given all before it."""

    ids: list[int]
    first: int

    @property
    def scored(self) -> int:
        return len(self.ids) - self.first


@dataclass(frozen=True)
class Corpus:
    """A text as a protocol sees it. words and bytes count what the scored tokens spell, where that is defined."""

    protocol: str
    window: int
    windows: list[Window]
    words: int | None = None
    bytes: int | None = None

    @property
    def tokens(self) -> int:
        return sum(window.scored for window in self.windows)


def gptq(documents: Sequence[str], tokenizer: Tokenizer, length: int, limit: int | None) -> Corpus:
    """The protocol of the quantization papers (GPTQ's wikitext2 evaluation).

    Documents joined by blank lines and tokenized once, BOS in front only if the tokenizer adds it; non-overlapping
    windows of `length`, the remainder dropped; all tokens but the first of a window are scored. The original
    multiplies each window's mean loss by `length` and divides by n * length: the plain mean over scored tokens.
    """
    ids = _joined(documents, tokenizer)
    length = min(length, len(ids))
    windows = [Window(ids[start : start + length], 1) for start in range(0, len(ids) - length + 1, length)]
    return Corpus("gptq", length, _limited(windows, limit))


def lmeval(documents: Sequence[str], tokenizer: Tokenizer, length: int, limit: int | None) -> Corpus:
    """Rolling log-likelihood as in lm-evaluation-harness.

    Every token of every document is scored, the first given BOS (EOS where the model has none). Windows feed
    `length` tokens and do not overlap, but the last reaches back to a full context and scores only what is left.
    words are counted by splitting on white space, bytes in UTF-8. `limit` stops after the document that reaches it.
    """
    prefix = tokenizer.bos if tokenizer.bos is not None else tokenizer.eos
    if prefix is None:
        raise bad_input(
            "protocol lmeval needs a BOS or EOS token, the model names neither", "--protocol gptq"
        )
    windows: list[Window] = []
    words = size = 0
    for document in documents:
        windows += _rolling(tokenizer.ids(document), prefix, length)
        words += len(re.split(r"\s+", document))
        size += len(document.encode())
        if limit is not None and sum(window.scored for window in windows) >= limit:
            break
    return Corpus("lmeval", length, _enough(windows), words, size)


def _rolling(ids: list[int], prefix: int, length: int) -> list[Window]:
    windows = []
    for start in range(0, len(ids), length):
        end = min(start + length, len(ids))
        fresh = end - start
        context = [prefix, *ids[:end]] if end <= length else ids[end - length - 1 : end]
        windows.append(Window(context, len(context) - fresh))
    return windows


def llamacpp(documents: Sequence[str], tokenizer: Tokenizer, length: int, limit: int | None) -> Corpus:
    """llama.cpp's perplexity tool: chunks of n_ctx tokens of which only the second half is scored.

    Where the model adds BOS, BOS replaces the first token of every chunk. With first = n_ctx / 2 the scored targets
    are the tokens first + 1 .. n_ctx - 1 of the chunk.
    """
    ids = _joined(documents, tokenizer)
    if len(ids) < 2 * length:
        raise bad_input(
            f"protocol llamacpp needs {2 * length} tokens for --window {length}, the text has {len(ids)}",
            "--window 128",
        )
    bos = tokenizer.window_bos
    windows = []
    for start in range(0, len(ids) - length + 1, length):
        chunk = ids[start : start + length]
        windows.append(Window(chunk if bos is None else [bos, *chunk[1:]], length // 2 + 1))
    return Corpus("llamacpp", length, _limited(windows, limit))


def _joined(documents: Sequence[str], tokenizer: Tokenizer) -> list[int]:
    bos = [] if tokenizer.window_bos is None else [tokenizer.window_bos]
    ids = bos + tokenizer.ids("\n\n".join(documents))
    if len(ids) < 16:
        raise bad_input(
            f"the text has {len(ids)} tokens, too few to score", "--text FILE with at least a page"
        )
    return ids


def _limited(windows: list[Window], limit: int | None) -> list[Window]:
    """As many windows from the start as hold at most `limit` scored tokens, at least one."""
    kept, total = [], 0
    for window in windows:
        if limit is not None and kept and total + window.scored > limit:
            break
        kept.append(window)
        total += window.scored
    return _enough(kept)


def _enough(windows: list[Window]) -> list[Window]:
    if not windows:
        raise bad_input("the text has no tokens to score")
    return windows


PROTOCOLS: dict[str, Callable[[Sequence[str], Tokenizer, int, int | None], Corpus]] = {
    "gptq": gptq,
    "lmeval": lmeval,
    "llamacpp": llamacpp,
}
DEFAULT_WINDOW = {"gptq": 2048, "lmeval": 2048, "llamacpp": 512}
