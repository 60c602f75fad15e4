"""Random numbers as a function of (seed, stream, index): integers only, so the same bits everywhere and for ever."""

from __future__ import annotations

from functools import cache
from statistics import NormalDist

import numba
import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_MASK = (1 << 64) - 1
_S27, _S30, _S31, _S32, _ONE = (np.uint64(value) for value in (27, 30, 31, 32, 1))

QUANTILES = 1 << 16
"""Steps of the normal distribution that `normals` draws from."""
NORMAL_ONE = 1 << 16
"""What 1.0 is in the integers of `normal_table`."""


@numba.njit(inline="always")
def word(key: np.uint64, index: int | np.signedinteger) -> np.uint64:
    """64 random bits number `index` >= 0 of a key: the finalizer of SplitMix64 (Steele, Lea, Flood 2014)."""
    z = key + (np.uint64(index) + _ONE) * _GOLDEN
    z = (z ^ (z >> _S30)) * _FIRST
    z = (z ^ (z >> _S27)) * _SECOND
    return z ^ (z >> _S31)


@numba.njit(inline="always")
def below(bits: np.uint64, limit: int) -> np.uint64:
    """An integer in [0, limit) from the upper half of a word: floor(u limit / 2^32), limit <= 2^32.

    Halving `limit` halves the result: what nests does so exactly. The bias is at most limit / 2^32.
    """
    return ((bits >> _S32) * np.uint64(limit)) >> _S32


def key_of(seed: int, stream: int) -> np.uint64:
    """The key of one stream of a seed (any non-negative integers): two rounds of the same finalizer."""
    if seed < 0 or stream < 0:
        raise ValueError(f"seed {seed} and stream {stream} must not be negative")
    state = _finalize((seed & _MASK) + 0x632BE59BD9B4E019 * (seed >> 64))
    return np.uint64(_finalize(state ^ _finalize(stream + 0x9E3779B97F4A7C15)))


def _finalize(value: int) -> int:
    value &= _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


@numba.njit(cache=True, nogil=True)
def _words(key: np.uint64, start: int, out: NDArray[np.uint64]) -> None:
    for i in range(out.size):
        out[i] = word(key, start + i)


def words(seed: int, stream: int, start: int, count: int) -> NDArray[np.uint64]:
    """Words start ... start + count - 1 of a stream: [count] uint64."""
    out = np.empty(count, np.uint64)
    _words(key_of(seed, stream), start, out)
    return out


@cache
def normal_table() -> NDArray[np.int32]:
    """Mid-point quantiles of N(0, 1) in units of 2^-16, rounded: [65536] int32, antisymmetric.

    Rounding hides the last bits in which mathematics libraries differ. Largest 4.33 deviations, variance 0.99998.
    """
    normal = NormalDist()
    half = [
        round(normal.inv_cdf((index + 0.5) / QUANTILES) * NORMAL_ONE)
        for index in range(QUANTILES // 2, QUANTILES)
    ]
    upper = np.array(half, np.int32)
    return np.concatenate([-upper[::-1], upper])


def normals(seed: int, stream: int, start: int, count: int) -> NDArray[np.float32]:
    """Draws of N(0, 1) on 65,536 quantiles, exact in float32: [count]."""
    index = (words(seed, stream, start, count) >> np.uint64(48)).astype(np.int64)
    return normal_table()[index].astype(np.float32) / np.float32(NORMAL_ONE)


def uniforms(seed: int, stream: int, start: int, count: int) -> NDArray[np.float64]:
    """Multiples of 2^-53 in [0, 1): [count] float64."""
    return (words(seed, stream, start, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(seed: int, stream: int, count: int) -> NDArray[np.int64]:
    """A random order of 0 ... count - 1 (Fisher and Yates, from the last place to the second)."""
    order = np.arange(count, dtype=np.int64)
    shuffle(key_of(seed, stream), 0, order)
    return order


@numba.njit(cache=True, nogil=True)
def shuffle(key: np.uint64, start: int, order: NDArray[np.int64]) -> None:
    """Bring `order` into a random order in place; place i uses word start + i."""
    for i in range(order.size - 1, 0, -1):
        j = np.int64(below(word(key, start + i), i + 1))
        kept = order[i]
        order[i] = order[j]
        order[j] = kept
