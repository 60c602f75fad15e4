"""Spectral compression of a table: each row keeps a prefix of its coordinates in the field's principal axes.

E [n, d] rows, f [n] how often each occurs, mu [d] their weighted mean, V [d, d] axes, C = (E - mu) V coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class TableSpectrum(NamedTuple):
    """Coordinates C [n, d] in decreasing order of importance, back-map B [d, d] with E = mu + C B, mean mu [d].

    importance [n, d]: what the loss gives for a coordinate, non-increasing along a row.
    """

    C: Floats
    B: Floats
    mean: Floats
    importance: Floats


class Price(NamedTuple):
    """Bits of a kept coordinate, of an axis (d numbers and its scale) and of the mean, for a width d."""

    entry: float
    axis: float
    mean: float


def price(bits: int, d: int) -> Price:
    """Codes have `bits` bits; with fewer than 32 the axes and the mean are float16, with a scale and offset an axis."""
    if bits == 32:
        return Price(32, 32 * d if d > 1 else 0, 32 * d)
    return Price(bits, (16 * d if d > 1 else 0) + 32, 16 * d)


def spectrum(E: Floats, f: Floats, metric: Floats | None = None) -> TableSpectrum:
    """Rotate by the eigenvectors of sum_i f_i c_i c_i^T, in a metric G [d, d] where the loss has one.

    With G = R R^T the rows are taken as (E - mu) R, whose squared length is what an error of that size costs; the
    importance of coordinate k of row i is f_i C_ik^2, then the running maximum from the right, so that prefixes are
    kept.
    """
    E = np.asarray(E, np.float64)
    f = np.maximum(np.asarray(f, np.float64), 1e-3)  # a row that never occurs is worth little, not nothing
    mean = (f[:, None] * E).sum(0) / f.sum()
    d = E.shape[1]
    R, back = np.eye(d), np.eye(d)
    if metric is not None and d > 1:
        values, vectors = np.linalg.eigh((metric + metric.T) / 2)
        values = np.maximum(values, 1e-4 * max(values.max(), 1e-300))
        R, back = vectors * np.sqrt(values), (vectors / np.sqrt(values)).T
    X = (E - mean) @ R
    scale = float(metric[0, 0]) if metric is not None and d == 1 else 1.0
    _, V = np.linalg.eigh((f[:, None] * X).T @ X)
    V = V[:, ::-1]
    V = V * np.where(V[np.abs(V).argmax(0), np.arange(d)] < 0, -1.0, 1.0)
    if d == 1:
        V = np.ones((1, 1))
    C = X @ V
    importance = scale * f[:, None] * np.square(C)
    importance = np.maximum.accumulate(importance[:, ::-1], axis=1)[:, ::-1]
    return TableSpectrum(C, V.T @ back, mean, importance)


def lengths_at(spectra: Sequence[TableSpectrum], prices: Sequence[Price], level: float) -> list[Ints]:
    """How long each row's prefix is where a bit costs `level`: an axis must earn its own price, too."""
    result = []
    for one, cost in zip(spectra, prices, strict=True):
        gains = np.maximum(one.importance - level * cost.entry, 0).sum(0)
        worth = gains > level * cost.axis
        axes = len(worth) if worth.all() else int(worth.argmin())
        result.append((one.importance[:, :axes] > level * cost.entry).sum(1))
    return result


def bits_of(lengths: Sequence[Ints], prices: Sequence[Price]) -> float:
    """Bits of all coordinates, axes, means, and 32 for each number of rows of a length."""
    total = 0.0
    for r, cost in zip(lengths, prices, strict=True):
        axes = int(r.max(initial=0))
        rounded = (
            axes * (32 + (8 if cost.entry % 8 else 0)) + 32
        )  # codes of rows of a length end in whole bytes
        total += cost.entry * float(r.sum()) + cost.axis * axes + cost.mean + rounded
    return total


def allocate(spectra: Sequence[TableSpectrum], prices: Sequence[Price], budget: float) -> list[Ints] | None:
    """The longest prefixes whose bits are within the budget; None where not even the means fit."""
    low, high = 0.0, max(float(one.importance.max(initial=0)) for one in spectra) + 1e-30
    if bits_of(lengths_at(spectra, prices, high), prices) > budget:
        return None
    if bits_of(lengths_at(spectra, prices, 0.0), prices) <= budget:
        return lengths_at(spectra, prices, 0.0)
    low = high * 1e-18
    for _ in range(100):
        middle = np.sqrt(low * high)
        if bits_of(lengths_at(spectra, prices, middle), prices) > budget:
            low = middle
        else:
            high = middle
    return lengths_at(spectra, prices, high)


def decode(one: TableSpectrum, lengths: Ints) -> Floats:
    """The rows whose coordinates behind their prefix are 0: [n, d]."""
    inside = np.arange(one.C.shape[1]) < lengths[:, None]
    return one.mean + (one.C * inside) @ one.B


def quantize(values: Floats, weights: Floats, bits: int) -> tuple[NDArray[np.uint8], np.float16, np.float16]:
    """Codes of an even grid over the values with its offset and step in float16; the range that costs least, tried
    in 16 shares of the whole."""
    low, high, best = float(values.min()), float(values.max()), None
    top = (1 << bits) - 1
    for share in np.linspace(1, 0.4, 16) if bits < 8 else (1.0,):
        centre, half = (low + high) / 2, (high - low) / 2 * share
        offset, step = np.float16(centre - half), np.float16(2 * half / top)
        if step == 0:
            step = np.float16(6.1e-5)
        codes = np.clip(np.rint((values - float(offset)) / float(step)), 0, top)
        error = float((weights * np.square(values - float(offset) - codes * float(step))).sum())
        if best is None or error < best[0]:
            best = (error, codes.astype(np.uint8), offset, step)
    assert best is not None
    return best[1], best[2], best[3]
