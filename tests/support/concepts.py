"""A small task with planted concepts: embeddings whose directions are concepts, classes that two concepts make."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bntools.core.artifact.writer import Writer

NAMES = [f"concept {letter}" for letter in "abcdefghijkl"]
CLASSES = ["boat", "camel", "tree", "house"]
MAKES = np.array([[0, 1], [2, 3], [4, 5], [6, 7]])


def rows(seed: int, count: int = 400, noise: float = 0.6):
    """x [n, 12], labels, and which concepts each row has: class c has concepts 2c and 2c + 1 in 85 % of its rows."""
    draw = np.random.default_rng(seed)
    y = draw.integers(0, len(CLASSES), count)
    present = draw.random((count, len(NAMES))) < 0.12
    for c, pair in enumerate(MAKES):
        mine = np.flatnonzero(y == c)
        present[np.ix_(mine, pair)] = draw.random((len(mine), 2)) < 0.85
    x = present + noise * draw.normal(size=present.shape)
    return x.astype(np.float32), y.astype(np.int64), present.astype(np.int8)


def write(path: Path, x, *, label=None, names=(), facts=None, concept=None, owner=None) -> Path:
    """An artifact of kind activations."""
    with Writer(str(path), "activations", force=True) as out:
        x = np.ascontiguousarray(x, np.float32)
        out.add_raw("x", "F32", x.shape, x.tobytes())
        for name, values in (("label", label), ("owner", owner)):
            if values is not None:
                values = np.ascontiguousarray(values, np.int64)
                out.add_raw(name, "I64", values.shape, values.tobytes())
        if concept is not None:
            out.add_raw("concept", "I8", concept.shape, np.ascontiguousarray(concept, np.int8).tobytes())
            out.files["concepts.txt"] = "\n".join(NAMES).encode()
        if names:
            out.files["names.txt"] = "\n".join(names).encode()
        out.describe("activations", facts or {})
    return path


def folder(root: Path) -> Path:
    """train, test (with annotations), concepts, classes."""
    facts = {"encoder": "planted", "classes": CLASSES}
    for name, seed in (("train", 0), ("test", 1)):
        x, y, present = rows(seed)
        write(root / f"{name}.safetensors", x, label=y, facts=facts, concept=present)
    owner = np.zeros((len(NAMES), len(CLASSES)), np.int64)
    for c, pair in enumerate(MAKES):
        owner[pair, c] = 1
    owner[8:] = 1
    write(root / "concepts.safetensors", np.eye(12), names=NAMES, facts={"encoder": "planted"}, owner=owner)
    classes = np.stack([np.eye(12)[pair].sum(0) for pair in MAKES])
    write(root / "classes.safetensors", classes, names=CLASSES, facts={"encoder": "planted"})
    return root


def sequences(path: Path, seed: int, count: int) -> Path:
    """Sequences of 6 to 10 windows of noise with concepts a and b in one window each: class 0 has a first."""
    draw = np.random.default_rng(seed)
    lengths, y = draw.integers(6, 11, count), draw.integers(0, 2, count)
    x = 0.25 * draw.normal(size=(int(lengths.sum()), 8))
    begin = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    for start, length, label in zip(begin, lengths, y, strict=True):
        first, second = np.sort(draw.permutation(length)[:2])
        x[start + first, label] += 1
        x[start + second, 1 - label] += 1
    doc = np.repeat(np.arange(count), lengths)
    with Writer(str(path), "activations", force=True) as out:
        x = np.ascontiguousarray(x, np.float32)
        out.add_raw("x", "F32", x.shape, x.tobytes())
        for name, values in (("label", y[doc]), ("doc", doc), ("pos", np.arange(len(doc)) - begin[doc])):
            out.add_raw(name, "I64", values.shape, np.ascontiguousarray(values, np.int64).tobytes())
        out.describe("activations", {"encoder": "planted", "classes": ["a then b", "b then a"]})
    return path
