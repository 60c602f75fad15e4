"""The orthonormal DCT-II of the last two axes, its low bands, and the resampling that they define."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@functools.lru_cache(maxsize=64)
def _cosines(n: int) -> NDArray[np.float64]:
    k, i = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    basis = math.sqrt(2 / n) * np.cos(np.pi * k * (2 * i + 1) / (2 * n))
    basis[0] = math.sqrt(1 / n)
    return basis


@functools.lru_cache(maxsize=64)
def _projection(high: int, low: int) -> Tensor:
    """A [low, high]: the low band of a DCT of `high` points, written as a field of `low` points; A A^T = 1."""
    return torch.from_numpy(_cosines(low).T @ _cosines(high)[:low])


def dct2(x: Tensor) -> Tensor:
    """Coefficients [..., H, W] float64 of a field [..., H, W]; white noise stays white, energy stays."""
    height, width = (torch.from_numpy(_cosines(n)).to(x.device) for n in x.shape[-2:])
    return height @ x.double() @ width.T


def idct2(c: Tensor) -> Tensor:
    """The field [..., H, W] of coefficients, float64."""
    height, width = (torch.from_numpy(_cosines(n)).to(c.device) for n in c.shape[-2:])
    return height.T @ c.double() @ width


def band(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The low band of x [..., H, W] as a field [..., h, w] of the same coefficients, float64; size (h, w) <= (H, W).

    Raises ValueError for a larger size.
    """
    if size[0] > x.shape[-2] or size[1] > x.shape[-1]:
        raise ValueError(f"no band of {size} in a field of {tuple(x.shape[-2:])}")
    rows, columns = (_projection(n, m).to(x.device) for n, m in zip(x.shape[-2:], size, strict=True))
    return rows @ x.double() @ columns.T


def spread(low: Tensor, size: tuple[int, int]) -> Tensor:
    """The field [..., H, W] whose low band is low [..., h, w], the rest zero: the adjoint of `band`, float64."""
    rows, columns = (_projection(n, m).to(low.device) for n, m in zip(size, low.shape[-2:], strict=True))
    return rows.T @ low.double() @ columns


def ratio(high: tuple[int, int], low: tuple[int, int]) -> float:
    """rho = sqrt(points of high / points of low): what a signal loses against white noise in its low band."""
    return math.sqrt(high[0] * high[1] / (low[0] * low[1]))


def in_band(high: tuple[int, int], low: tuple[int, int]) -> Tensor:
    """Which coefficients [H, W] of the large field are in the band of the small one."""
    mask = torch.zeros(high, dtype=torch.bool)
    mask[: low[0], : low[1]] = True
    return mask
