"""A real task without images: definitions of nouns into WordNet's 24 large lexicographer classes.

Concepts are words and word pairs of the training definitions; annotations are hypernyms, one row a definition.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input
from bntools.kernels.counter_random import permutation

CLASSES = (
    *(
        "act",
        "animal",
        "artifact",
        "attribute",
        "body",
        "cognition",
        "communication",
        "event",
        "feeling",
        "food",
    ),
    *("group", "location", "object", "person", "phenomenon", "plant", "possession", "process", "quantity"),
    *("relation", "shape", "state", "substance", "time"),
)
_NUMBERS = [*range(4, 16), *range(17, 29)]
"""Lexicographer files of nouns without the 52 tops and the 42 motives (lexnames(5WN))."""
_PER_CLASS, _TRAIN, _POOL, _LEAST_WORDS = 400, 0.6, 60, 3
_COMMON = frozenset(
    (
        *(
            "the",
            "of",
            "a",
            "an",
            "or",
            "and",
            "in",
            "to",
            "is",
            "that",
            "with",
            "for",
            "by",
            "on",
            "as",
            "from",
        ),
        *("at", "are", "it", "its", "be", "which", "used", "who", "has", "have", "not", "one", "something"),
        *("someone", "being", "usually", "especially", "made", "having", "any"),
    )
)
_POSITIVES = (60, 2500)
"""Hypernyms annotated: those of at least and at most so many training rows."""


class Rows(NamedTuple):
    """Definitions, their class indices, and their synsets."""

    texts: list[str]
    y: NDArray[np.int64]
    synsets: list[str]


class Task(NamedTuple):
    """Training and test rows; candidate concepts and which classes each is frequent in; hypernyms as annotations."""

    train: Rows
    test: Rows
    concepts: list[str]
    owner: NDArray[np.int64]
    hypernyms: list[str]
    train_truth: NDArray[np.int8]
    test_truth: NDArray[np.int8]


def read(folder: str, seed: int) -> Task:
    """The task of a seed from a folder with glosses.tsv. Raises BnError (exit 3) where that is not there."""
    path = Path(folder) / "glosses.tsv"
    if not path.is_file():
        raise bad_input(f"no glosses.tsv in {folder}", "bntools fetch wordnet -o wordnet/")
    nouns = [parts for parts in _lines(path) if parts[1] == "n"]
    groups: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for synset, _, number, _, _, gloss in nouns:
        text = re.split(r'; "| "', gloss)[0]
        if int(number) in _NUMBERS and len(text.split()) >= _LEAST_WORDS:
            groups[_NUMBERS.index(int(number))].append((synset, text))
    parts: tuple[list[tuple[str, str, int]], list[tuple[str, str, int]]] = ([], [])
    for c in sorted(groups):
        order = permutation(seed, c, len(groups[c]))[:_PER_CLASS]
        for position, index in enumerate(order):
            parts[position >= int(_TRAIN * len(order))].append((*groups[c][int(index)], c))
    train, test = (
        Rows([t for _, t, _ in p], np.array([c for *_, c in p]), [s for s, *_ in p]) for p in parts
    )
    concepts, owner = candidates(train)
    names, both = _hypernyms(nouns, train, test)
    return Task(train, test, concepts, owner, names, *both)


def _lines(path: Path) -> Iterator[list[str]]:
    with open(path, encoding="utf-8") as lines:
        next(lines, None)
        for line in lines:
            parts = line.rstrip("\n").split("\t")
            if len(parts) == 6:
                yield parts


def phrases(text: str) -> set[str]:
    """Words and pairs of neighbouring words of a text, without common and short ones."""
    words = re.findall(r"[a-z]+", text.lower())
    rare = [word not in _COMMON and len(word) > 2 for word in words]
    single = {word for word, good in zip(words, rare, strict=True) if good}
    return single | {
        f"{a} {b}" for a, b, x, y in zip(words, words[1:], rare, rare[1:], strict=False) if x and y
    }


def candidates(train: Rows) -> tuple[list[str], NDArray[np.int64]]:
    """The phrases most peculiar to each class, count x log odds, and which classes own each [K, C]."""
    sizes = np.bincount(train.y, minlength=len(CLASSES))
    per_class: list[Counter[str]] = [Counter() for _ in CLASSES]
    for text, c in zip(train.texts, train.y, strict=True):
        per_class[c].update(phrases(text))
    total: Counter[str] = Counter()
    for counts in per_class:
        total.update(counts)
    owners: dict[str, list[int]] = defaultdict(list)
    for c, counts in enumerate(per_class):
        rest = len(train.y) - int(sizes[c])
        ranked = []
        for phrase, count in counts.items():
            if count > 1 and not any(name in phrase for name in CLASSES):
                other = total[phrase] - count
                odds = np.log((count + 0.5) / (sizes[c] - count + 0.5)) - np.log(
                    (other + 0.5) / (rest - other + 0.5)
                )
                ranked.append((-count * float(odds), phrase))
        for _, phrase in sorted(ranked)[:_POOL]:
            owners[phrase].append(c)
    names = sorted(owners)
    owner = np.zeros((len(names), len(CLASSES)), np.int64)
    for k, name in enumerate(names):
        owner[k, owners[name]] = 1
    return names, owner


def _hypernyms(nouns: list[list[str]], train: Rows, test: Rows) -> tuple[list[str], list[NDArray[np.int8]]]:
    """Ancestors of each row's synset that are neither rare nor almost everything, by their first lemma."""
    parents = {synset: above.split() for synset, _, _, _, above, _ in nouns}
    lemma = {synset: lemmas.split()[0].replace("_", " ") for synset, _, _, lemmas, _, _ in nouns}
    known: dict[str, frozenset[str]] = {}

    def ancestors(synset: str) -> frozenset[str]:
        if synset not in known:
            known[synset] = frozenset()
            above = [p for p in parents.get(synset, []) if p in parents]
            known[synset] = frozenset(above).union(*(ancestors(p) for p in above))
        return known[synset]

    counts = Counter(a for synset in train.synsets for a in ancestors(synset))
    chosen = sorted(a for a, n in counts.items() if _POSITIVES[0] <= n <= _POSITIVES[1])
    place = {a: k for k, a in enumerate(chosen)}
    tables = []
    for rows in (train, test):
        table = np.zeros((len(rows.y), len(chosen)), np.int8)
        for row, synset in enumerate(rows.synsets):
            table[row, [place[a] for a in ancestors(synset) if a in place]] = 1
        tables.append(table)
    names = [
        lemma[a] if sum(lemma[b] == lemma[a] for b in chosen) == 1 else f"{lemma[a]} {a}" for a in chosen
    ]
    return names, tables
