"""From stored forms to vectors: one function a form, and the logits of rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bntools.core.methods.embedding.fields import distinct
from bntools.core.methods.embedding.stored import StoredTables
from bntools.kernels.embedding.hashing import Words, buckets, digests, hash_features
from bntools.kernels.embedding.train import contract, perceptron

Floats = NDArray[np.float32]
_BATCH = 8192
LAYERS = ("W0", "b0", "W1", "b1", "W2")
"""Of the perceptron over hashes, as `layer.NAME`."""


class FieldValues(NamedTuple):
    """Values of one field: their place in the vocabulary [n], as many as it has for unseen ones; their digests."""

    ids: NDArray[np.int64]
    words: Words


def vectors(stored: StoredTables, t: int, texts: Sequence[str]) -> Floats:
    """Vectors [n, width] of values of field t; an unseen value is the prior's mean, 0, unless it is hashed."""
    vocabulary = stored.vocab[t]
    count = 0 if vocabulary is None else len(vocabulary)
    if stored.fields[t].get("numbered"):
        ids = np.array([int(text) for text in texts], np.int64)
    else:
        known = {} if vocabulary is None else {text: i for i, text in enumerate(vocabulary)}
        ids = np.array([known.get(text, count) for text in texts], np.int64)
    out = FORMS[stored.fields[t]["form"]](stored, t, FieldValues(ids, digests(texts)))
    if vocabulary is not None:
        out = np.where((ids == count)[:, None], np.float32(0), out)
    return np.ascontiguousarray(out, np.float32)


def table_of(stored: StoredTables, t: int) -> Floats:
    """All rows of a field with a vocabulary, or with numbered rows [values, width]."""
    values = stored.vocab[t]
    if values is None:
        values = [str(i) for i in range(stored.fields[t]["values"])]
    return vectors(stored, t, values)


def _padded(array: NDArray[Any], ids: NDArray[np.int64]) -> NDArray[Any]:
    return array[np.minimum(ids, len(array) - 1)]


def _rows(stored: StoredTables, t: int, values: FieldValues) -> NDArray[Any]:
    return _padded(stored.arrays[f"table.{stored.names[t]}"], values.ids)


def _hashed(stored: StoredTables, t: int, values: FieldValues) -> NDArray[Any]:
    table = stored.arrays[f"table.{stored.names[t]}"]
    return table[buckets(values.words, len(table), stored.facts["seed"], t)]


def _chunks(stored: StoredTables, t: int, values: FieldValues) -> NDArray[Any]:
    """k lookups in one table of all fields, each under a hash of its own."""
    table, k = stored.arrays["table"], stored.fields[t]["lookups"]
    parts = [table[buckets(values.words, len(table), stored.facts["seed"], t, j)] for j in range(k)]
    return np.concatenate(parts, 1)


def _robe(stored: StoredTables, t: int, values: FieldValues) -> NDArray[Any]:
    """Chunks of one flat array that begin anywhere."""
    flat, c, k = stored.arrays["table"], stored.facts["chunk"], stored.fields[t]["lookups"]
    starts = [buckets(values.words, len(flat) - c + 1, stored.facts["seed"], t, j) for j in range(k)]
    return np.concatenate([flat[s[:, None] + np.arange(c)] for s in starts], 1)


def _product(stored: StoredTables, t: int, values: FieldValues) -> NDArray[Any]:
    """Remainder row times quotient row."""
    name = stored.names[t]
    R, Q = stored.arrays[f"remainder.{name}"], stored.arrays[f"quotient.{name}"]
    return R[values.ids % len(R)] * _padded(Q, values.ids // len(R))


def _mixed(stored: StoredTables, t: int, values: FieldValues) -> NDArray[Any]:
    """Blocks of values by frequency, each with a width of its own and a projection."""
    name, one = stored.names[t], stored.fields[t]
    out, start = np.zeros((len(values.ids), one["width"]), np.float32), 0
    for b, count in enumerate(one["blocks"]):
        inside = (values.ids >= start) & (values.ids < start + count)
        rows = stored.arrays[f"block{b}.{name}"][values.ids[inside] - start]
        projection = stored.arrays.get(f"projection{b}.{name}")
        out[inside] = rows if projection is None else rows @ projection
        start += count
    return out


def _train(stored: StoredTables, t: int, values: FieldValues) -> NDArray[Any]:
    """Three cores, a slice of each."""
    cores = [torch.from_numpy(stored.arrays[f"core{j}.{stored.names[t]}"]) for j in range(3)]
    last = min(stored.fields[t]["values"], math.prod(len(core) for core in cores)) - 1
    return contract(cores, torch.from_numpy(np.minimum(values.ids, last))).numpy()


def _perceptron(stored: StoredTables, t: int, values: FieldValues) -> NDArray[Any]:
    """One network of all fields over hashes of the value."""
    layers = [torch.from_numpy(stored.arrays[f"layer.{name}"]) for name in LAYERS]
    x = hash_features(values.words, len(layers[0]), stored.facts["seed"], t)
    return perceptron(torch.from_numpy(x), layers).numpy()


def _masked(stored: StoredTables, t: int, values: FieldValues) -> NDArray[Any]:
    """Entries that are not 0, with the gaps between them."""
    name, one = stored.names[t], stored.fields[t]
    flat = np.zeros(one["values"] * one["width"], np.float32)
    flat[positions(stored.arrays[f"gaps.{name}"])] = stored.arrays[f"table.{name}"]
    return _padded(flat.reshape(one["values"], one["width"]), values.ids)


def gaps(where: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Ascending positions as bytes: the zeros skipped before each, 255 for 255 more."""
    skipped = np.diff(where, prepend=-1) - 1
    escapes = skipped // 255
    out = np.full(int(escapes.sum()) + len(where), 255, np.uint8)
    out[np.cumsum(escapes + 1) - 1] = skipped % 255
    return out


def positions(code: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Positions again."""
    total = np.cumsum(code.astype(np.int64))
    ends = code != 255
    return total[ends] + np.arange(int(ends.sum()))


def unpack(packed: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint8]:
    """Codes of a little-endian stream of bits."""
    raw = np.unpackbits(packed, bitorder="little", count=bits * count).reshape(count, bits)
    return np.packbits(raw, axis=1, bitorder="little")[:, 0] if count else np.zeros(0, np.uint8)


def pack(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Codes as a little-endian stream of bits."""
    raw = np.unpackbits(codes.reshape(-1, 1), axis=1, bitorder="little")[:, :bits]
    return np.packbits(raw.reshape(-1), bitorder="little")


def _spectral(stored: StoredTables, t: int, values: FieldValues) -> NDArray[Any]:
    """mean + coordinates times axes; rows of one length stand together, the longest first."""
    name, bits = stored.names[t], stored.fields[t]["bits"]
    counts = stored.arrays[f"lengths.{name}"].astype(np.int64)  # rows of length 0, 1, ...
    axes, total = len(counts) - 1, int(counts.sum())
    C = np.zeros((total, axes), np.float32)
    grid, start = stored.arrays.get(f"grid.{name}"), 0
    for r in range(axes, 0, -1):
        count = int(counts[r])
        if count:
            kept = stored.arrays[f"rank{r}.{name}"]
            if grid is not None:
                codes = unpack(kept, bits, count * r).reshape(count, r)
                kept = grid[:r, 0].astype(np.float32) + codes * grid[:r, 1].astype(np.float32)
            C[start : start + count, :r] = kept
        start += count
    ids = stored.arrays.get(f"order.{name}")
    place = np.minimum(values.ids, total - 1)
    place = place if ids is None else ids.astype(np.int64)[place]
    B = stored.arrays[f"basis.{name}"].astype(np.float32)
    return stored.arrays[f"mean.{name}"].astype(np.float32) + C[place] @ B


FORMS: dict[str, Callable[[StoredTables, int, FieldValues], NDArray[Any]]] = {
    "rows": _rows, "hashed": _hashed, "chunks": _chunks, "robe": _robe, "product": _product, "mixed": _mixed,
    "masked": _masked, "spectral": _spectral, "train": _train, "perceptron": _perceptron,
}  # fmt: skip


def outputs(stored: StoredTables, columns: Mapping[str, NDArray[Any]]) -> Floats:
    """Logits, or predicted numbers, of rows given as columns of the fields."""
    tables, index = [], []
    for t, name in enumerate(stored.names):
        texts, where = distinct(columns[name])
        tables.append(vectors(stored, t, texts))
        index.append(where)
    head, out = stored.network(), []
    for start in range(0, len(index[0]), _BATCH):
        x0 = np.concatenate([v[w[start : start + _BATCH]] for v, w in zip(tables, index, strict=True)], 1)
        out.append(head.forward(torch.from_numpy(x0)).numpy())
    return np.concatenate(out) if out else np.zeros(0, np.float32)
