"""Where the bits go: one number sets the steps of all layers, keys and values, or the levels of all coordinates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bntools.core.errors import BnError
from bntools.core.methods.kv import entropy_code, fixed_code
from bntools.core.methods.kv.entropy_code import EntropyRows, LevelCounts, LevelTables
from bntools.core.methods.kv.metric import QueryMetric
from bntools.kernels.attention import gaussian_levels, levels, packed_rows

Floats = NDArray[np.float32]
AVERAGED = (1.0, 4.0)
"""Tokens whose errors attention averages: none of a key's, whose logit stands alone; many of a value's."""
_TOKENS = 384
"""Tokens a layer on which rates are measured while the size is sought."""
_ROUNDS = 3
_LARGEST = 8000
"""Level that the largest coordinate of the calibration may have."""
_SAMPLES = 400_000
EXACT_SHARES = (0.0, 0.005, 0.01, 0.02)


@dataclass(frozen=True)
class CacheSample:
    """What a size is sought on. By planned layer: metric, coordinates [heads, n, 2 d], classes of steps [heads, n].

    sensitivity [L, 2]: divergence a squared unit of error in each coordinate, of keys and of values.
    """

    metrics: Sequence[QueryMetric]
    y: Sequence[Floats]
    classes: Sequence[NDArray[np.int8]]
    sensitivity: NDArray[np.float64]
    gamma: float

    def fewer(self, tokens: int) -> CacheSample:
        """Every so-many-th run of 32 tokens, so that about `tokens` are left."""
        total = self.y[0].shape[1]
        runs = np.arange(max(total // 32, 1))
        chosen = runs[:: max(1, len(runs) * 32 // max(tokens, 32))]
        rows = (chosen[:, None] * 32 + np.arange(min(32, total))[None]).reshape(-1)
        rows = rows[rows < total]
        return CacheSample(
            self.metrics, [np.ascontiguousarray(y[:, rows]) for y in self.y], [c[:, rows] for c in self.classes],
            self.sensitivity, self.gamma,
        )  # fmt: skip

    @property
    def values(self) -> int:
        return sum(y.size for y in self.y)


def spread_of(y: Floats) -> Floats:
    """Mean size of each coordinate [heads, 2 d]."""
    return np.abs(y).mean(1)


def steps_of(sample: CacheSample, distance: float) -> NDArray[np.float32]:
    """Steps [L, 2] whose loss s step^2 is distance^2, none so fine that a level leaves 16 bits."""
    steps = distance / np.sqrt(sample.sensitivity)
    half = sample.y[0].shape[2] // 2
    sizes = [[np.abs(y[..., :half]).max(), np.abs(y[..., half:]).max()] for y in sample.y]
    return np.maximum(steps, np.array(sizes) / _LARGEST).astype(np.float32)


def entropy_rows(sample: CacheSample, distance: float, tables: LevelTables) -> list[EntropyRows]:
    """Coders of all layers at `steps_of` a distance."""
    return [
        EntropyRows(metric, (float(pair[0]), float(pair[1])), spread_of(y), tables, sample.gamma > 0)
        for metric, pair, y in zip(sample.metrics, steps_of(sample, distance), sample.y, strict=True)
    ]


def fit_tables(sample: CacheSample, distance: float, rounds: int = _ROUNDS) -> tuple[LevelTables, float]:
    """Tables counted under their own prices, and the bits a value that they take."""
    tables, bits = LevelTables.plain(), 0.0
    for _ in range(rounds):
        counts = LevelCounts()
        rows = entropy_rows(sample, distance, tables)
        for coder, y, classes in zip(rows, sample.y, sample.classes, strict=True):
            coder.measure(y, classes, counts)
        tables = counts.tables()
    rows = entropy_rows(sample, distance, tables)
    sums = np.zeros((64, 2, 3))
    for coder, y, classes in zip(rows, sample.y, sample.classes, strict=True):
        coder.agreement(y, classes, sums)
    tables.centres[:, 3:] = levels.gains(sums, AVERAGED)
    bits = sum(c.measure(y, e) for c, y, e in zip(rows, sample.y, sample.classes, strict=True))
    return tables, bits / sample.values


def seek(
    bits_of: Callable[[float], float], bits: float, low: float, high: float, falling: bool = True
) -> float:
    """The argument at which a monotone function is `bits`, sought on a logarithmic scale."""
    for _ in range(18):
        middle = (low * high) ** 0.5
        value = bits_of(middle)
        if abs(value - bits) < 2e-3 * bits:
            return middle
        if (value > bits) == falling:
            low = middle
        else:
            high = middle
    return (low * high) ** 0.5


def entropy_plan(sample: CacheSample, bits: float) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of the code `entropy` at so many bits a coded value, and its facts."""
    few = sample.fewer(_TOKENS)
    cache: dict[float, float] = {}

    def rate(distance: float) -> float:
        if distance not in cache:
            cache[distance] = fit_tables(few, distance, 2)[1]
        return cache[distance]

    distance = seek(rate, bits, 1e-5, 30.0)
    tables, measured = fit_tables(sample.fewer(4 * _TOKENS), distance)
    steps = steps_of(sample, distance)
    tensors = {
        "steps": torch.from_numpy(steps),
        "spread": torch.tensor(np.stack([spread_of(y) for y in sample.y])).half(),
        "tables": torch.from_numpy(tables.frequencies), "centres": torch.from_numpy(tables.centres),
    }  # fmt: skip
    rows = entropy_rows(sample, distance, tables)
    halves = [_halves(coder, y, e) for coder, y, e in zip(rows, few.y, few.classes, strict=True)]
    facts = {"distance": distance, "coded_bits": measured, "steps": steps.tolist(), "bits": halves}
    return tensors, facts


def _halves(coder: EntropyRows, y: Floats, classes: NDArray[np.int8]) -> list[float]:
    """Bits a value of keys and of values of one layer."""
    totals, price = np.zeros(2), coder.tables.bits
    half = y.shape[2] // 2
    for head in range(len(y)):
        chosen, _, columns = coder.quantised(y[head], classes[head].astype(np.int16), head)
        table = np.clip(coder.row_class[head][None] + columns[:, None], 0, 63)
        spent = price[table, np.minimum(np.abs(chosen.astype(np.int32)), 128)]
        totals += [spent[:, :half].sum(), spent[:, half:].sum()]
    return (totals / (y.size / 2)).tolist()


def fitted_levels(
    sample: CacheSample, scale: Sequence[Floats], seed: int
) -> tuple[list[Floats], NDArray[np.float64]]:
    """Lloyd-Max levels by bits of the coordinates in units of their deviation, and their errors D(b)."""
    rng = np.random.default_rng(seed)
    parts = []
    for y, deviation in zip(sample.y, scale, strict=True):
        flat = (y / deviation[:, None]).reshape(-1)
        parts.append(flat[rng.integers(len(flat), size=_SAMPLES // len(sample.y))])
    pooled = np.concatenate(parts)
    pooled = pooled[np.abs(pooled) < np.quantile(np.abs(pooled), 0.9995)]
    pairs = [gaussian_levels.lloyd_max(pooled, bits) for bits in range(fixed_code.MOST + 1)]
    return [pair[0] for pair in pairs], np.array([pair[1] for pair in pairs])


def choose_widths(
    weighted: NDArray[np.float64], errors: NDArray[np.float64], bits: float
) -> NDArray[np.uint8]:
    """Bits of each coordinate [..., 2 d] that sum to `bits` a value and have the least sum of s var D(b).

    weighted: s var of each. The least of the Lagrangian over all layers, heads, keys and values at once.
    """
    loss = weighted[..., None] * errors

    def widths(price: float) -> NDArray[np.intp]:
        return (loss + price * np.arange(len(errors))).argmin(-1)

    positive = weighted[weighted > 0]
    price = seek(
        lambda x: float(widths(x).mean()), bits, float(positive.min()) * 1e-6, float(positive.max()) * 10
    )
    return widths(price).astype(np.uint8)


def fixed_plan(
    sample: CacheSample, bits: float, exact: float, seed: int
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of the code `fixed` at so many bits a coded value, the share `exact` of tokens in 16 bits among them."""
    heads, width = sample.y[0].shape[0], sample.y[0].shape[2]
    scale = [np.maximum(y.std(1), 1e-6).astype(np.float16).astype(np.float32) for y in sample.y]
    points, errors = fitted_levels(sample, scale, seed)
    s = np.repeat(sample.sensitivity, width // 2, axis=1)[:, None, :]
    weighted = s * np.stack(scale).astype(np.float64) ** 2
    aim, spent, chosen = bits, 0.0, np.zeros(weighted.shape, np.uint8)
    extra = (16 * exact + (1 / width if exact else 0)) if exact else 0.0
    for _ in range(6):  # rows are padded to bytes
        if aim <= 0:
            raise BnError(f"{bits:g} bits do not hold {100 * exact:g} % of tokens in 16 bits", "--exact 0", 4)
        chosen = choose_widths(weighted, errors, aim)
        spent = (
            float(np.mean([8 * packed_rows.row_bytes(row) / width for layer in chosen for row in layer]))
            + extra
        )
        aim += bits - spent
    limit = np.full((len(sample.y), heads), np.inf, np.float32)
    plain = [
        fixed_code.FixedRows(m, w, d, tuple(points), lim, (float(p[0]), float(p[1])))
        for m, w, d, lim, p in zip(sample.metrics, chosen, scale, limit, sample.sensitivity, strict=True)
    ]
    if exact:
        limit = np.stack([
            np.quantile(coder.codes(y)[1], 1 - exact, axis=1) for coder, y in zip(plain, sample.y, strict=True)
        ]).astype(np.float32)  # fmt: skip
    padded = np.zeros((fixed_code.MOST + 1, 1 << fixed_code.MOST), np.float32)
    for count, some in enumerate(points):
        padded[count, : len(some)] = some
    tensors = {
        "widths": torch.from_numpy(chosen), "scale": torch.tensor(np.stack(scale)).half(),
        "levels": torch.from_numpy(padded), "limit": torch.from_numpy(limit),
        "sensitivity": torch.tensor(sample.sensitivity, dtype=torch.float32),
        "gains": torch.tensor(1 / (1 - errors / errors[0] * (1 - 1 / AVERAGED[1])), dtype=torch.float32),
    }  # fmt: skip
    halves = chosen.reshape(len(chosen), heads, 2, width // 2).mean((1, 3))
    loss = float(
        np.take_along_axis(weighted[..., None] * errors, chosen[..., None].astype(np.intp), -1).mean()
    )
    return tensors, {"coded_bits": spent, "exact": exact, "bits": halves.tolist(), "loss": loss}


__all__ = ["EXACT_SHARES", "CacheSample", "entropy_code", "entropy_plan", "fixed_plan"]
