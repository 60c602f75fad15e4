"""N-gram statistics on a GPU without sorts or tables: every pair of positions is compared, in registers."""

# pyright: reportIndexIssue=false
# (a triton kernel is launched as kernel[grid](...), which its decorator's types do not say)
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from bntools.kernels.ngrams.ngrams import Sentences

TILE = {"ROWS": 64, "COLS": 32}
"""Hypothesis positions and positions compared with them at a time."""
WARPS = 8
FIELD = 16
"""Bits of a count: 4 orders in one 64-bit word, sentences up to 65535 ids."""


def ngram_stats(hyp: Sentences, refs: Sentences, first: Tensor, last: Tensor, max_n: int = 4) -> Tensor:
    """`ngrams.ngram_stats` in one launch; sentences up to 65535 ids, meant for up to about 2048.

    Position i of the hypothesis matches at order n iff as many equal n-grams stand before it as stand in a
    reference fewer than (max over references): the same count as clipping, without a dictionary.
    No workspace, nothing read back by the host: safe in a CUDA graph.

    256 x 1024 ids, one reference, N = 4: 256 (1024^2 + 1024^2 / 2 and half a tile more) = 0.42 G pairs, 27 machine
    instructions each (the inner loops of the sm_80 cubin have 212 and 228 for 8 pairs, int64 ids): 11 G, so 0.6 ms
    of an A100's issue slots (19.5 T lanes/s) and at most twice that, as its integer units run at half rate; 0.35
    to 0.7 ms on an H100 (33 T). TensorBLEU's authors measured 19 ms on an A100. Bytes: 2 x 2.1 MB of int64 ids
    from memory, 2.7 us at 1.555 TB/s (every tile again from L1), and 10 KB of results. Computed, never run on a
    GPU. Registers leave one program of 8 warps to a multiprocessor; no spills.
    """
    stats = torch.empty(len(hyp.length), 2 + 2 * max_n, dtype=torch.int32, device=hyp.ids.device)
    if len(stats):
        sides = hyp.ids, hyp.start, hyp.length, refs.ids, refs.start, refs.length
        clip_kernel[(len(stats),)](stats, *sides, first, last, N=max_n, **TILE, num_warps=WARPS)
    return stats


@triton.jit
def count_tile(
    ids, start, length, other, other_start, other_len, i, j,
    SELF: tl.constexpr, BEGIN: tl.constexpr, END: tl.constexpr,
):  # fmt: skip
    """[rows, cols] int64: fields 1 where the (BEGIN + 1)- to END-grams at i and j are equal.

    SELF: both in the hypothesis, and only j before i counts.
    """
    equal = (i < length)[:, None] & (j < other_len)[None, :]
    if SELF:
        equal = equal & (j[None, :] < i[:, None])
    counts = tl.zeros((i.shape[0], j.shape[0]), tl.int64)
    for k in tl.static_range(END):
        mine = tl.load(ids + start + i + k, mask=i + k < length, other=0)
        theirs = tl.load(other + other_start + j + k, mask=j + k < other_len, other=0)
        equal = equal & (mine[:, None] == theirs[None, :]) & (j + k < other_len)[None, :]
        if k >= BEGIN:
            counts += equal.to(tl.int64) << (16 * (k - BEGIN))
    return counts


@triton.jit
def larger_fields(a, b, COUNT: tl.constexpr):
    """The larger of each of COUNT fields of 16 bits."""
    larger = tl.zeros_like(a)
    for k in tl.static_range(COUNT):
        larger |= tl.maximum((a >> (16 * k)) & 0xFFFF, (b >> (16 * k)) & 0xFFFF) << (16 * k)
    return larger


@triton.jit
def count_rows(
    ids, start, length, other, other_start, other_len, i, end,
    SELF: tl.constexpr, BEGIN: tl.constexpr, END: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """[rows] fields: how many n-grams of the other side, at positions before `end`, equal the one at i."""
    total = tl.zeros((i.shape[0], COLS), tl.int64)
    for block in range(0, end, COLS):
        j = block + tl.arange(0, COLS)
        total += count_tile(ids, start, length, other, other_start, other_len, i, j, SELF, BEGIN, END)
    return tl.sum(total, 1)


@triton.jit
def closest(hyp_len, ref_len, nearest):
    """The nearer to hyp_len of ref_len and nearest, both as distance * 2 + longer; -1 is never nearer."""
    apart = tl.where(ref_len > hyp_len, (ref_len - hyp_len) * 2 + 1, (hyp_len - ref_len) * 2)
    return tl.where((ref_len >= 0) & (apart < nearest), apart, nearest)


@triton.jit
def clip_orders(
    out, hyp, start, length, refs, ref_start, ref_lens, one, two,
    begin: tl.constexpr, end: tl.constexpr, N: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Matches and totals of up to four orders, those above begin up to end, of one row."""
    total = tl.zeros((ROWS,), tl.int64)
    for block in range(0, length, ROWS):
        i = block + tl.arange(0, ROWS)
        upto = tl.minimum(block + ROWS, length)
        before = count_rows(hyp, start, length, hyp, start, length, i, upto, True, begin, end, COLS)
        limit = tl.zeros((ROWS,), tl.int64)
        for r in range(one, two):
            ref_len = tl.load(ref_lens + r)
            count = count_rows(
                hyp, start, length, refs, tl.load(ref_start + r), ref_len, i, ref_len,
                False, begin, end, COLS,
            )  # fmt: skip
            limit = larger_fields(limit, count, end - begin)
        for k in tl.static_range(end - begin):
            less = ((before >> (16 * k)) & 0xFFFF) < ((limit >> (16 * k)) & 0xFFFF)
            total += (less & (i + begin + k < length)).to(tl.int64) << (16 * k)
    matched = tl.sum(total, 0)
    for k in tl.static_range(end - begin):
        tl.store(out + 2 + begin + k, (matched >> (16 * k)).to(tl.int32) & 0xFFFF)
        tl.store(out + 2 + N + begin + k, tl.maximum(length - begin - k, 0).to(tl.int32))


@triton.jit
def clip_kernel(
    stats, hyp, hyp_start, hyp_lens, refs, ref_start, ref_lens, first, last,
    N: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """One program a row of stats [B, 2 + 2 N]."""
    b = tl.program_id(0)
    out = stats + b.to(tl.int64) * (2 + 2 * N)
    start, length = tl.load(hyp_start + b), tl.load(hyp_lens + b)
    one, two = tl.load(first + b), tl.load(last + b)
    for begin in tl.static_range(0, N, 4):
        clip_orders(
            out,
            hyp,
            start,
            length,
            refs,
            ref_start,
            ref_lens,
            one,
            two,
            begin,
            min(begin + 4, N),
            N,
            ROWS,
            COLS,
        )
    nearest = tl.full((), 1 << 62, tl.int64)
    for r in range(one, two):
        nearest = closest(length, tl.load(ref_lens + r), nearest)
    tl.store(out, length.to(tl.int32))
    tl.store(out + 1, (length + tl.where(nearest % 2 == 1, nearest // 2, -(nearest // 2))).to(tl.int32))
