"""Attention over packed rows on a GPU: each program unpacks a run of tokens, weighs it and sums it, parts joined last.

A program holds its tokens' codes in registers: keys' levels are looked up and multiplied by the query, the softmax
runs over the program's tokens alone, and what it adds of the values goes out with its largest logit and its sum, from
which the host's last step makes one softmax of all parts. Interpreted and compiled ahead of time, never run on a GPU.
"""

# pyright: reportIndexIssue=false, reportCallIssue=false, reportOperatorIssue=false, reportArgumentType=false
# (a triton kernel is launched as kernel[grid](...), which its decorator's types do not say)
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

TOKENS, WARPS = 64, 8
"""Of a program; with four warps, heads of 128 spill registers on sm_90."""


def attend(query: Tensor, packed: Tensor, widths: Tensor, levels: Tensor, mean: Tensor) -> Tensor:
    """As `attend_cpu.attend`, on a device: query [groups, d], packed [n, bytes], widths [2 d], levels [2 d, 2^b].

    Reads each packed byte once for keys and values and all query heads that share them.
    """
    groups, half = query.shape
    count, size = packed.shape
    parts = triton.cdiv(count, TOKENS)
    starts = torch.cumsum(widths.int(), 0).int() - widths.int()
    out = query.new_empty(parts, groups, half, dtype=torch.float32)
    top, total = (query.new_empty(parts, groups, dtype=torch.float32) for _ in range(2))
    width = triton.next_power_of_2(half)
    attend_kernel[(parts, groups)](
        out, top, total, query.float().contiguous(), packed, widths.int(), starts, levels.contiguous(),
        mean.float().contiguous(), count, size, half, groups, levels.shape[1], WIDTH=width, TOKENS=TOKENS,
        num_warps=WARPS,
    )  # fmt: skip
    scale = (top - top.amax(0)).exp()
    return (out * scale[..., None]).sum(0) / (total * scale).sum(0)[:, None]


@triton.jit
def load_levels(packed, widths, starts, levels, token, place, count, size, end, most):
    """Restored values [tokens, coordinates] of coordinates `place` below `end`, of packed rows of `size` bytes."""
    inside = place < end
    bits = tl.load(widths + place, mask=inside, other=0)
    start = tl.load(starts + place, mask=inside, other=0)
    byte = start // 8
    held = (token < count)[:, None] & (inside & (bits > 0))[None, :]
    at = packed + token.to(tl.int64)[:, None] * size + byte[None, :]
    low = tl.load(at, mask=held, other=0).to(tl.int32)
    high = tl.load(at + 1, mask=held & (byte + 1 < size)[None, :], other=0).to(tl.int32)
    code = ((low | high << 8) >> (start % 8)[None, :]) & ((1 << bits) - 1)[None, :]
    return tl.load(levels + place[None, :] * most + code, mask=held, other=0.0)


@triton.jit
def attend_kernel(
    out, top, total, query, packed, widths, starts, levels, mean, count, size, half, groups, most,
    WIDTH: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """A run of tokens and one query: out [parts, groups, half], top and total [parts, groups]."""
    part, group = tl.program_id(0), tl.program_id(1)
    token = part * TOKENS + tl.arange(0, TOKENS)
    place = tl.arange(0, WIDTH)
    keys = load_levels(packed, widths, starts, levels, token, place, count, size, half, most)
    q = tl.load(query + group * half + place, mask=place < half, other=0.0)
    logits = tl.sum(keys * q[None, :], 1) + tl.load(mean + group)
    logits = tl.where(token < count, logits, float("-inf"))
    largest = tl.max(logits, 0)
    chances = tl.exp(logits - largest)
    values = load_levels(packed, widths, starts, levels, token, half + place, count, size, 2 * half, most)
    mixed = tl.sum(values * chances[:, None], 0)
    tl.store(out + (part * groups + group) * half + place, mixed, mask=place < half)
    tl.store(top + part * groups + group, largest)
    tl.store(total + part * groups + group, tl.sum(chances, 0))
