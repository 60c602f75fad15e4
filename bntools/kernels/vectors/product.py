"""Product codes with groups of unequal width: one byte chooses one of 256 words for the coordinates of its group."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.kernels.vectors import allocation, loops
from bntools.kernels.vectors.allocation import Groups

Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]

LLOYD_STEPS = 8
"""Rounds of k-means; after eight the error falls by under 1 % a round on text embeddings."""


class Codebook(NamedTuple):
    """Groups of coordinates, and the words of each: words [d, 256], row j for coordinate order[j]."""

    groups: Groups
    words: Floats


def vector_codebook(sample: Floats, count: int, seed: int, threads: int = 1) -> Codebook:
    """Words trained by k-means on `sample` [n, D] for `count` bytes a vector, coordinates shared by their worth."""
    return trained_codebook(sample, allocation.share(sample.var(0, dtype=np.float64), count), seed, threads)


def plain_codebook(sample: Floats, count: int, seed: int, threads: int = 1) -> Codebook:
    """Words of plain product quantization (Jegou and others, 2011): `count` runs of coordinates as they come."""
    start = np.arange(count + 1) * sample.shape[1] // count
    return trained_codebook(sample, Groups(np.arange(sample.shape[1]), start), seed, threads)


def trained_codebook(sample: Floats, groups: Groups, seed: int, threads: int = 1) -> Codebook:
    """Words trained by k-means on `sample` [n, D] for each group of coordinates."""
    words = np.empty((len(groups.order), loops.WORDS), np.float32)

    def train(byte: int) -> None:
        low, high = groups.start[byte], groups.start[byte + 1]
        part = np.ascontiguousarray(sample[:, groups.order[low:high]])
        words[low:high] = _k_means(part, np.random.default_rng((seed, byte))).T

    spread(train, len(groups.start) - 1, threads)
    return Codebook(groups, words)


def scalar_codebook(sample: Floats, count: int) -> Codebook:
    """Words that are grids: whole bits by marginal gain, Lloyd levels of each coordinate, eight bits to a byte."""
    bits = allocation.whole_bits(sample.var(0, dtype=np.float64), allocation.BYTE * count)
    groups, bits = allocation.pack(bits, count)
    words = np.empty((len(groups.order), loops.WORDS), np.float32)
    code = np.arange(loops.WORDS)
    for low, high in itertools.pairwise(groups.start):
        shift = 0
        for j in range(low, high):
            b = int(bits[groups.order[j]])
            words[j] = _lloyd(sample[:, groups.order[j]], b)[(code >> shift) & ((1 << b) - 1)]
            shift += b
    return Codebook(groups, words)


def encode(x: Floats, book: Codebook, passes: int = 2, threads: int = 1) -> Codes:
    """Codes [n, bytes] of x [n, D]: the nearest word of each group, then `passes` rounds that lessen the angle to x.

    Scores are corrected for length afterwards (`length_factor`), so the angle, not the distance, is what is lost.
    """
    groups = book.groups
    codes = np.zeros((len(x), len(groups.start) - 1), np.uint8)

    def code(part: int) -> None:
        rows = slice(part * _ROWS, (part + 1) * _ROWS)
        grouped = np.ascontiguousarray(x[rows][:, groups.order])
        column = np.empty(len(grouped), np.int64)
        for g, (low, high) in enumerate(itertools.pairwise(groups.start)):
            loops.nearest_word(np.ascontiguousarray(grouped[:, low:high]), book.words[low:high], column)
            codes[rows, g] = column
        for _ in range(passes):
            loops.best_angle(grouped, book.words, groups.start, codes[rows])

    spread(code, -(-len(x) // _ROWS), threads)
    return codes


def decode(codes: Codes, book: Codebook, width: int) -> Floats:
    """Vectors [n, width] that codes [n, bytes] stand for; coordinates in no group are zero."""
    result = np.zeros((len(codes), width), np.float32)
    for g, (low, high) in enumerate(itertools.pairwise(book.groups.start)):
        for j in range(low, high):
            result[:, book.groups.order[j]] = book.words[j][codes[:, g]]
    return result


def length_factor(x: Floats, decoded: Floats) -> Floats:
    """What to multiply each decoded row by so that its product with the row itself is right: |x|^2 / <x, c> [n].

    As RaBitQ's correction (Gao and Long, arXiv 2405.12497, section 3.2); 1 where the two are orthogonal.
    """
    along = np.einsum("nd,nd->n", x, decoded, dtype=np.float64)
    square = np.einsum("nd,nd->n", x, x, dtype=np.float64)
    sound = along > 1e-6 * square
    return np.where(sound, square / np.where(sound, along, 1.0), 1.0).astype(np.float32)


def into_blocks(codes: Codes) -> Codes:
    """[n, bytes] to [ceil(n / 32), bytes, 32], zeros after the last row."""
    count = -(-len(codes) // loops.LANES)
    padded = np.zeros((count * loops.LANES, codes.shape[1]), np.uint8)
    padded[: len(codes)] = codes
    return np.ascontiguousarray(padded.reshape(count, loops.LANES, -1).transpose(0, 2, 1))


def from_blocks(blocks: Codes, n: int) -> Codes:
    """The inverse of `into_blocks`."""
    return np.ascontiguousarray(blocks.transpose(0, 2, 1).reshape(-1, blocks.shape[1])[:n])


_ROWS = 4096


def spread(job: Callable[[int], Any], count: int, threads: int) -> None:
    """Do job(0) to job(count - 1), each writing its own place."""
    if threads == 1:
        for index in range(count):
            job(index)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(job, range(count)))


def _k_means(x: Floats, random: np.random.Generator) -> Floats:
    """256 words [256, d] of x [n, d]; a word that nothing is near to starts again at a row."""
    words = x[random.choice(len(x), loops.WORDS, len(x) < loops.WORDS)].copy()
    near = np.empty(len(x), np.int64)
    for _ in range(LLOYD_STEPS):
        loops.nearest_word(x, np.ascontiguousarray(words.T), near)
        size = np.bincount(near, minlength=loops.WORDS)
        for j in range(x.shape[1]):
            words[:, j] = np.bincount(near, x[:, j], loops.WORDS) / np.maximum(size, 1)
        empty = np.flatnonzero(size == 0)
        words[empty] = x[random.choice(len(x), len(empty))]
    return words


def _lloyd(values: Floats, bits: int) -> Floats:
    """2^bits levels of one coordinate, ascending: quantiles, then 12 Lloyd rounds."""
    count = 1 << bits
    levels = np.quantile(values, (np.arange(count) + 0.5) / count)
    for _ in range(12):
        near = np.searchsorted(0.5 * (levels[1:] + levels[:-1]), values)
        size = np.bincount(near, minlength=count)
        mean = np.bincount(near, values, count) / np.maximum(size, 1)
        levels = np.sort(np.where(size > 0, mean, levels))
    return levels.astype(np.float32)
