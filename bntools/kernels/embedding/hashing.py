"""Hashes of values: one 64-bit digest of a value's text, then as many independent ones as there are lookups."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
_POINTS = 1 << 20  # values a hash feature takes


def digests(values: Iterable[str]) -> Words:
    """BLAKE2b of each text, 64 bits: the same in every process and on every machine."""
    return np.array(
        [int.from_bytes(hashlib.blake2b(v.encode(), digest_size=8).digest(), "little") for v in values],
        np.uint64,
    )


def mix(words: Words, *seeds: int) -> Words:
    """A hash of each word under the seeds: the finaliser of SplitMix64 after each (Steele 2014)."""
    with np.errstate(over="ignore"):
        x = words
        for seed in seeds:
            x = x + np.uint64(0x9E3779B97F4A7C15) * np.uint64(seed + 1)
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            x = x ^ (x >> np.uint64(31))
        return x


def hash_features(words: Words, count: int, *seeds: int) -> NDArray[np.float32]:
    """`count` hashes of each word as numbers in [-1, 1] [n, count], each evenly spread (DHE, arXiv 2010.10784)."""
    out = np.empty((len(words), count), np.float32)
    for j in range(count):
        out[:, j] = buckets(words, _POINTS, *seeds, j)
    return out * np.float32(2 / (_POINTS - 1)) - np.float32(1)


def buckets(words: Words, count: int, *seeds: int) -> NDArray[np.int64]:
    """Where each word falls among `count` buckets."""
    return (mix(words, *seeds) % np.uint64(count)).astype(np.int64)
