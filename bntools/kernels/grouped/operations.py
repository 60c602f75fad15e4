"""Grouped codes, value = (code - zero) * scale: their dense values, and their product with a vector."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from bntools.kernels.grouped import fixed_rate_trellis as trellis
from bntools.kernels.grouped.bits import unpack, unpack_reference

BLOCK = 1 << 18
"""Values worked on at a time: 1 MiB in float32, so that passes over a block stay in cache."""


GPU_BLOCK = 1 << 24
"""The same on a GPU, where a block should fill every multiprocessor."""
FEW = 8
"""Vectors for which the codes are read once a vector; more are multiplied block by block."""


class Packed(NamedTuple):
    """A weight W [out, in] as packed codes with one scale and one zero for each `group` columns of a row.

    codes: [rows, ceil(cols * bits / 8)] uint8, see `packing`. scales: [rows, ceil(cols / group)] float16 or
    float32. zeros: integers packed like the codes, [rows, ceil(groups * bits / 8)] uint8, or any numbers,
    [rows, groups] float32; None: every zero is 2^(bits - 1). memory: where it is not 0, codes stand for the levels
    of `fixed_trellis`. group: -1 or at least cols for one group a row; the last group may be shorter. transposed:
    False when a row is an output of W; True when a row is an input and its groups run along the outputs
    (per-IC), so that W = values.T.
    """

    codes: Tensor
    scales: Tensor
    zeros: Tensor | None
    bits: int
    group: int
    cols: int
    transposed: bool
    memory: int = 0

    @property
    def width(self) -> int:
        """Columns of a group, all but a last shorter one."""
        return self.cols if self.group == -1 else min(self.group, self.cols)

    @property
    def groups(self) -> int:
        """Groups of a row."""
        return -(-self.cols // self.width)

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of W."""
        rows = self.codes.shape[0]
        return (self.cols, rows) if self.transposed else (rows, self.cols)


def dequantize(p: Packed, dtype: torch.dtype = torch.float32) -> Tensor:
    """W [out, in]: code minus zero, exact in float32, times the scale in float32, then rounded to `dtype`.

    Bit-identical on every device and to `dequantize_reference`. A transposed p gives a transposed view.
    Raises ValueError when the shapes of p do not fit each other. On a CPU: one pass over blocks of rows that
    stay in L2.
    """
    _check(p)
    if _on_gpu(p.codes) and _plain(p):
        from bntools.kernels.grouped import gpu as grouped_gpu

        return grouped_gpu.dequantize(p, dtype)
    values = torch.empty(p.codes.shape[0], p.cols, dtype=dtype, device=p.codes.device)
    for rows, block in _blocks(p, values if dtype == torch.float32 else None):
        if dtype != torch.float32:
            values[rows] = block
    return values.T if p.transposed else values


def matvec(p: Packed, x: Tensor) -> Tensor:
    """y [..., out] = x [..., in] @ W.T in float32, returned in x's dtype, without ever holding W; no gradient.

    A few vectors take the fused kernels: `groups_triton` on a GPU, `groups_numba` on a CPU where groups fill whole
    words of eight codes. Anything else is dequantized block by block and multiplied. Raises ValueError when the
    shapes of p or x do not fit.
    """
    _check(p)
    out, inputs = p.shape
    if x.ndim == 0 or x.shape[-1] != inputs:
        raise ValueError(f"x {list(x.shape)} does not fit W [{out}, {inputs}]")
    if p.codes.device.type == "cpu" and x.numel() == inputs and _fits(p):
        y = _product(p, x.detach())
        return y.to(x.dtype).view(*x.shape[:-1], out)
    flat = x.detach().reshape(-1, inputs)
    if _on_gpu(p.codes) and _plain(p) and len(flat) <= FEW:
        from bntools.kernels.grouped import gpu as grouped_gpu

        y = grouped_gpu.matvec(p, flat)
    elif 1 < len(flat) <= FEW and p.codes.device.type == "cpu" and _fits(p):
        y = torch.stack([_product(p, row) for row in flat])
    else:
        y = _by_blocks(p, flat.float())
    return y.to(x.dtype).reshape(*x.shape[:-1], out)


def dequantize_reference(p: Packed, dtype: torch.dtype = torch.float32) -> Tensor:
    """The specification of `dequantize`."""
    group = torch.arange(p.cols, device=p.codes.device) // p.width
    codes = unpack_reference(p.codes, p.bits, p.cols)
    levels = trellis.levels(codes, p.memory).float() / 2 - 0.25 if p.memory else codes.float()
    zeros = torch.full(p.scales.shape, 2.0 ** (p.bits - 1), device=p.codes.device)
    if p.zeros is not None:
        packed = p.zeros.dtype == torch.uint8
        zeros = unpack_reference(p.zeros, p.bits, p.groups).float() if packed else p.zeros
    values = ((levels - zeros[:, group]) * p.scales.float()[:, group]).to(dtype)
    return values.T if p.transposed else values


def matvec_reference(p: Packed, x: Tensor) -> Tensor:
    """The specification of `matvec`."""
    return (x.float() @ dequantize_reference(p).T).to(x.dtype)


def _zeros(p: Packed) -> Tensor:
    """[rows, groups] float32."""
    if p.zeros is None:
        return torch.full(p.scales.shape, 2.0 ** (p.bits - 1), device=p.codes.device)
    return unpack(p.zeros, p.bits, p.groups).float() if p.zeros.dtype == torch.uint8 else p.zeros.float()


def _plain(p: Packed) -> bool:
    """Whether the codes and zeros are plain integers, which is what the GPU's kernels read."""
    return not p.memory and (p.zeros is None or p.zeros.dtype == torch.uint8)


def _blocks(p: Packed, into: Tensor | None = None) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of dequantized rows [n, cols] float32: in `into` [rows, cols], or each overwriting the last."""
    zeros, scales = (_zeros(p) + 0.25 * bool(p.memory))[..., None], p.scales.float()[..., None]
    whole = p.cols // p.width
    count = trellis.SEGMENT if p.memory else max(1, BLOCK // p.cols)
    buffer = torch.empty(count, p.cols, device=p.codes.device)
    for start in range(0, p.codes.shape[0], count):
        rows = slice(start, min(start + count, p.codes.shape[0]))
        values = buffer[: rows.stop - start] if into is None else into[rows]
        codes = unpack(p.codes[rows], p.bits, p.cols)
        if p.memory:
            torch.mul(trellis.levels(codes, p.memory), 0.5, out=values)
        else:
            values.copy_(codes)
        even = values[:, : whole * p.width].unflatten(1, (whole, p.width))
        even.sub_(zeros[rows, :whole]).mul_(scales[rows, :whole])
        if whole < p.groups:
            values[:, whole * p.width :].sub_(zeros[rows, -1]).mul_(scales[rows, -1])
        yield rows, values


def _gpu_blocks(p: Packed) -> Iterator[tuple[slice, Tensor]]:
    """The same on a GPU."""
    count = max(1, GPU_BLOCK // p.cols)
    for start in range(0, p.codes.shape[0], count):
        rows = slice(start, start + count)
        zeros = None if p.zeros is None else p.zeros[rows]
        yield (
            rows,
            dequantize(p._replace(codes=p.codes[rows], scales=p.scales[rows], zeros=zeros, transposed=False)),
        )


def _by_blocks(p: Packed, x: Tensor) -> Tensor:
    """x [n, in] to y [n, out], one block of rows after another."""
    y = x.new_zeros(len(x), p.shape[0])
    for rows, block in _gpu_blocks(p) if _on_gpu(p.codes) and _plain(p) else _blocks(p):
        if p.transposed:
            y.addmm_(x[:, rows], block)
        else:
            y[:, rows] = x @ block.T
    return y


def _product(p: Packed, x: Tensor) -> Tensor:
    """One vector x, of `in` values in any shape, to y [out] float32."""
    from bntools.kernels.grouped import cpu as grouped_cpu

    return grouped_cpu.product(p.codes, p.scales, p.zeros, p.bits, p.width, p.cols, p.transposed, x)


def _fits(p: Packed) -> bool:
    """Whether groups start on whole words of eight codes, as `groups_numba` reads them."""
    return (
        _plain(p)
        and (p.groups == 1 or p.width % 8 == 0)
        and sys.byteorder == "little"
        and p.codes.shape[0] > 0
    )


def _on_gpu(codes: Tensor) -> bool:
    return codes.is_cuda and find_spec("triton") is not None


def _check(p: Packed) -> None:
    if p.cols < 1 or (p.group < 1 and p.group != -1):
        raise ValueError(
            f"cols must be positive and group positive or -1, got cols {p.cols}, group {p.group}"
        )
    if not 1 <= p.bits <= 8:
        raise ValueError(f"bits must be 1 to 8, got {p.bits}")
    rows, groups = p.codes.shape[0], p.groups
    if (
        p.codes.shape[1] == -(-p.cols * p.bits // 8)
        and p.scales.shape == (rows, groups)
        and (p.zeros is None or p.zeros.shape == (rows, -(-groups * p.bits // 8)))
    ):
        return
    need = {"codes": (rows, -(-p.cols * p.bits // 8)), "scales": (rows, p.groups)}
    if p.zeros is not None:
        packed = p.zeros.dtype == torch.uint8
        need["zeros"] = (rows, -(-p.groups * p.bits // 8) if packed else p.groups)
    for name, shape in need.items():
        got = tuple(getattr(p, name).shape)
        if got != shape:
            raise ValueError(
                f"{name} of {rows} rows, {p.cols} columns, {p.groups} groups: need {shape}, got {got}"
            )
