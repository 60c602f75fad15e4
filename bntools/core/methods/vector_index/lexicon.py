"""Vectors as a few words of a vocabulary with a weight each, and the exact search by these words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.artifact.reader import Artifact
from bntools.core.artifact.writer import Writer
from bntools.core.errors import BnError, bad_input
from bntools.core.methods.vector_index.index import METRICS, Floats, Hits, Indices, prepare
from bntools.kernels.vectors import postings
from bntools.kernels.vectors.postings import Postings
from bntools.kernels.vectors.product import spread

KIND = "lexicon-index"
FORMAT = 1
VOCABULARY = "vocabulary.txt"
_ROWS = 1024
_TYPES = {"head.queries": "F16", "head.base": "F16", "bias.queries": "F32", "bias.base": "F32",
          "postings": "U8", "start": "I64", "ids": "I64"}  # fmt: skip


class WordHead(NamedTuple):
    """Weights of a vector e in words: log(1 + relu(W e + b)), W [V, D] and b [V]; the `kept` largest count.

    step: what a whole impact of 1 stands for.
    """

    weight: Floats
    bias: Floats
    kept: int
    step: float


@dataclass(frozen=True)
class Lexicon:
    """Inverted lists of `rows` vectors, the heads that words of queries and vectors come from, what words are called.

    names: [n] what to call rows, or None; words: [V] text, or empty.
    """

    metric: str
    queries: WordHead
    base: WordHead
    lists: Postings
    rows: int
    names: Indices | None = None
    words: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.rows

    @property
    def width(self) -> int:
        """D, the coordinates of a query."""
        return self.queries.weight.shape[1]

    @cached_property
    def lengths(self) -> Indices:
        """Postings of each word [V]."""
        return postings.lengths(self.lists, self.rows)

    def bytes_per_vector(self) -> float:
        """Bytes of postings a vector; heads and where lists start, which all share, are not in it."""
        return len(self.lists.data) / self.rows


def activate(head: WordHead, rows: Floats) -> Floats:
    """Weights [n, V] of all words."""
    return np.log1p(np.maximum(rows @ head.weight.T + head.bias, 0))


def weigh(head: WordHead, rows: Floats) -> tuple[Indices, Floats]:
    """The kept words [n, k] of rows and their weights, largest first."""
    weights = activate(head, rows)
    count = min(head.kept, weights.shape[1])
    words = np.argpartition(-weights, count - 1, axis=1)[:, :count]
    chosen = np.take_along_axis(weights, words, 1)
    order = np.argsort(-chosen, axis=1, kind="stable")
    return np.take_along_axis(words, order, 1), np.take_along_axis(chosen, order, 1)


def impacts(head: WordHead, rows: Floats) -> tuple[Indices, NDArray[np.uint8]]:
    """The kept words of rows [n, D] and their weights as whole impacts of `step`, a few rows in memory at a time."""
    count = min(head.kept, len(head.bias))
    words, whole = np.empty((len(rows), count), np.int64), np.empty((len(rows), count), np.uint8)
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        words[part], weights = weigh(head, rows[part])
        whole[part] = np.clip(np.rint(weights / head.step), 0, 255)
    return words, whole


def search(
    lexicon: Lexicon,
    queries: Floats,
    k: int,
    *,
    threads: int = 1,
    advance: Callable[[int], None] = lambda count: None,
) -> Hits:
    """The k rows for each query [m, D] with the largest sums of products of weights, of equal ones the lower."""
    words, whole = impacts(lexicon.queries, prepare(queries, lexicon.metric))
    result = Hits(np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32))
    unit = lexicon.queries.step * lexicon.base.step

    def answer(number: int) -> None:
        part = slice(number * _ROWS, (number + 1) * _ROWS)
        rows, sums = postings.search(lexicon.lists, words[part], whole[part], lexicon.rows, k)
        result.rows[part], result.scores[part] = rows, sums * unit
        advance(len(rows))

    spread(answer, -(-len(queries) // _ROWS), threads)
    return result


def touched(lexicon: Lexicon, queries: Floats) -> float:
    """Postings that an average query adds up, as a share of the rows: the cost of a search."""
    words, whole = impacts(lexicon.queries, prepare(queries, lexicon.metric))
    return float(np.where(whole > 0, lexicon.lengths[words], 0).sum(1).mean() / lexicon.rows)


def named(lexicon: Lexicon, names: Indices | None, words: tuple[str, ...]) -> Lexicon:
    """The same lists with what to call rows and words."""
    return replace(lexicon, names=names, words=words)


def write(lexicon: Lexicon, out: Writer) -> None:
    """Add the tensors, the words and the facts to a writer of kind `lexicon-index`."""
    arrays = {
        "head.queries": lexicon.queries.weight.astype(np.float16),
        "head.base": lexicon.base.weight.astype(np.float16),
        "bias.queries": lexicon.queries.bias, "bias.base": lexicon.base.bias,
        "postings": lexicon.lists.data, "start": lexicon.lists.start,
    }  # fmt: skip
    if lexicon.names is not None:
        arrays["ids"] = lexicon.names
    for name, array in arrays.items():
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        out.add_raw(name, _TYPES[name], array.shape, flat.data)
    if lexicon.words:
        out.files[VOCABULARY] = "".join(f"{word}\n" for word in lexicon.words).encode()
    kept, units = ([getattr(h, name) for h in (lexicon.queries, lexicon.base)] for name in ("kept", "step"))
    out.describe("index", {"version": FORMAT, "metric": lexicon.metric, "rows": lexicon.rows, "kept": kept,
                           "units": units, **lexicon.facts})  # fmt: skip


def read(source: Artifact) -> Lexicon:
    """The lexicon in an artifact, every list checked. Raises BnError (exit 3) for another kind, version or damage."""
    if source.kind != KIND:
        raise bad_input(
            f"{source.label} holds {source.kind}, not a {KIND}", "bntools vec-index --method lexicon"
        )
    facts = source.json("bntools.index", dict)
    version = facts.pop("version", None)
    if version != FORMAT:
        raise bad_input(f"{source.label}: index version {version}, known is {FORMAT}", "update bntools")
    odd = [name for name in source.names() if source.entries[name].dtype != _TYPES.get(name)]
    if odd:
        raise bad_input(f"{source.label}: damaged index: {odd[0]} is {source.entries[odd[0]].dtype}")
    held = {name: source.tensor(name).numpy() for name in source.names()}
    text = source.files.get(VOCABULARY, b"").decode("utf-8", "replace")
    try:
        return _assemble(held, facts, tuple(text.splitlines()))
    except BnError:
        raise
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise bad_input(f"{source.label}: damaged index: {str(error)[:100]}") from None


def _assemble(held: dict[str, NDArray[Any]], facts: dict[str, Any], words: tuple[str, ...]) -> Lexicon:
    metric, rows, kept, units = (facts.pop(name) for name in ("metric", "rows", "kept", "units"))
    heads = [
        WordHead(held[f"head.{side}"].astype(np.float32), held[f"bias.{side}"], int(k), float(s))
        for side, k, s in zip(("queries", "base"), kept, units, strict=True)
    ]
    count = len(held["start"]) - 1
    for head in heads:
        _check(head.weight.ndim == 2 and head.weight.shape == (count, heads[0].weight.shape[1]), "heads")
        _check(head.bias.shape == (count,) and head.kept > 0 and 0 < head.step < 1e30, "biases")
        _check(bool(np.isfinite(head.weight).all() and np.isfinite(head.bias).all()), "numbers not finite")
    _check(metric in METRICS and isinstance(rows, int) and 0 < rows < 1 << 31, "rows or metric")
    _check(len(words) in (0, count), "one line of the vocabulary a word")
    names = held.get("ids")
    _check(names is None or names.shape == (rows,), "ids: one a row")
    lexicon = Lexicon(
        metric, heads[0], heads[1], Postings(held["postings"], held["start"]), rows, names, words, facts
    )
    _check(held["postings"].ndim == 1 and len(lexicon.lengths) == count > 0, "lists of postings")
    return lexicon


def _check(sound: bool, what: str) -> None:
    if not sound:
        raise ValueError(what)
