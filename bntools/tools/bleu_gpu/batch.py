"""Sentences however they are given (tensors, nested tensors, flat ones, lists) as the kernels take them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bntools.core.errors import bad_input, usage
from bntools.kernels import ngrams
from bntools.kernels.ngrams import Sentences

Ids = Tensor | Sequence[Any]


class Batch(NamedTuple):
    """Hypotheses of leading shape `shape`, and the references first[b] to last[b] - 1 of each, `most` at most."""

    hyp: Sentences
    refs: Sentences
    first: Tensor
    last: Tensor
    most: int | None
    shape: tuple[int, ...]


class Side(NamedTuple):
    """What the caller says of one side: ids, and at most one of lengths, mask, cumulative lengths."""

    name: str
    ids: Ids
    length: Ids | None = None
    mask: Tensor | None = None
    cu: Ids | None = None


def batch(hyp: Side, refs: Side, ref_rows: Ids | None, pad_id: int | None, eos_id: int | None) -> Batch:
    """Both sides on hyp's device, in one integer type, cut at eos_id and pads. Raises BnError (exit 3)."""
    device = hyp.ids.device if isinstance(hyp.ids, Tensor) else torch.device("cpu")
    own, shape = _shaped(hyp, _sentences(hyp, device))
    rows = shape[0]
    other, first, last, most = _references(refs, ref_rows, device)
    if own.ids.dtype != other.ids.dtype:
        own, other = (s._replace(ids=s.ids.to(torch.int64)) for s in (own, other))
    if len(first) != rows:
        raise bad_input(
            f"{rows} rows in hyp and {len(first)} in refs", "give one row of references a sentence"
        )
    if device.type == "cpu":
        _complete(other, first, last)
    if len(shape) == 2:
        first, last = (x.repeat_interleave(shape[1]) for x in (first, last))
    return Batch(*(_cut(s, eos_id, pad_id) for s in (own, other)), first, last, most, shape)


def sentences(side: Side, pad_id: int | None = None, eos_id: int | None = None) -> Sentences:
    """One side alone, all its sentences one after another. Raises BnError (exit 3)."""
    device = side.ids.device if isinstance(side.ids, Tensor) else torch.device("cpu")
    return _cut(_sentences(side, device), eos_id, pad_id)


def _cut(s: Sentences, eos_id: int | None, pad_id: int | None) -> Sentences:
    return s if eos_id is None and pad_id is None else ngrams.cut(s, eos_id, pad_id)


def _shaped(side: Side, s: Sentences) -> tuple[Sentences, tuple[int, ...]]:
    ids = side.ids
    if isinstance(ids, Tensor) and not ids.is_nested and side.cu is None:
        if ids.ndim not in (2, 3):
            raise bad_input(
                f"hyp has shape {list(ids.shape)}", "give [batch, length] or [batch, group, length]"
            )
        return s, tuple(ids.shape[:-1])
    return s, (len(s.length),)


def _references(
    side: Side, rows: Ids | None, device: torch.device
) -> tuple[Sentences, Tensor, Tensor, int | None]:
    """All references, the first and last of each row, and the most a row has where that is known."""
    ids = side.ids
    if isinstance(ids, Tensor):
        if not ids.is_nested and side.cu is None and ids.ndim not in (2, 3):
            raise bad_input(f"refs has shape {list(ids.shape)}", "give [batch, references, length]")
        s = _sentences(side, device)
        if rows is not None:
            bounds = _whole(rows, "ref_rows").to(device)
            return s, bounds[:-1], bounds[1:], None
        each = ids.shape[1] if not ids.is_nested and ids.ndim == 3 else 1
        first = (
            torch.arange(ids.shape[0] if each != 1 or ids.ndim == 3 else len(s.length), device=device) * each
        )
        return s, first, first + each, each
    if any(_is_id(reference) for row in ids for reference in row):
        raise bad_input(
            "refs is a list of lists of ids", "give a list of references a row: [[[5, 7], [5, 8]], ...]"
        )
    counts = torch.tensor([len(row) for row in ids], dtype=torch.int64)
    length = side.length
    if length is not None and not isinstance(length, Tensor):
        length = list(chain.from_iterable(x if isinstance(x, Sequence) else [x] for x in length))
    s = _sentences(side._replace(ids=list(chain.from_iterable(ids)), length=length), device)
    last = counts.cumsum(0)
    most = int(counts.max()) if len(counts) else 0
    return s, (last - counts).to(device), last.to(device), most


def _is_id(value: object) -> bool:
    return isinstance(value, int) or (isinstance(value, Tensor) and value.ndim == 0)


def _sentences(side: Side, device: torch.device) -> Sentences:
    given = [x for x in ("length", "mask", "cu") if getattr(side, x) is not None]
    if len(given) > 1:
        raise usage(f"{side.name} has both {given[0]} and {given[1]}", "give one of them")
    ids = side.ids
    if side.cu is not None:
        return _flat(side, device)
    if isinstance(ids, Tensor) and not ids.is_nested:
        known = _dense(side, _integers(ids, side.name))
    else:
        known = _ragged(ids.unbind() if isinstance(ids, Tensor) else ids)
    if side.length is not None:
        known = known._replace(length=_lengths(side, known))
    moved = (x.to(device) for x in (known.ids, known.start, known.length))
    return Sentences(*moved, known.width)


def _dense(side: Side, ids: Tensor) -> Sentences:
    """Sentences of a tensor [..., width], in place wherever the last dimension is contiguous."""
    if side.mask is not None:
        return _masked(ids, side.mask, side.name)
    ids = ids if ids.stride(-1) == 1 or ids.shape[-1] < 2 else ids.contiguous()
    *leading, width = ids.shape
    start = torch.zeros(leading, dtype=torch.int64, device=ids.device)
    for axis, (size, stride) in enumerate(zip(leading, ids.stride(), strict=False)):
        place = torch.arange(size, device=ids.device) * stride
        start += place.view([-1 if i == axis else 1 for i in range(len(leading))])
    span = 1 + sum((n - 1) * stride for n, stride in zip(ids.shape, ids.stride(), strict=True))
    flat = ids.as_strided((span if ids.numel() else 0,), (1,))
    start = start.flatten()
    return Sentences(flat, start, torch.full_like(start, width), width)


def _masked(ids: Tensor, mask: Tensor, name: str) -> Sentences:
    """Only the ids where the mask is not zero, wherever they stand in their row."""
    if mask.shape != ids.shape:
        raise bad_input(f"{name}_mask has shape {list(mask.shape)}", f"the ids have {list(ids.shape)}")
    kept = mask != 0
    order = (~kept).to(torch.uint8).sort(dim=-1, stable=True).indices
    dense = _dense(Side(name, ids), ids.gather(-1, order))
    return dense._replace(length=kept.sum(-1).flatten())


def _flat(side: Side, device: torch.device) -> Sentences:
    """Flat ids with cumulative lengths [K + 1] (cu_seqlens)."""
    ids = _integers(torch.as_tensor(side.ids), side.name).to(device)
    cu = _whole(side.cu, f"{side.name}_cu").to(device)
    if ids.ndim != 1 or cu.ndim != 1 or not len(cu):
        raise bad_input(
            f"{side.name} has shape {list(ids.shape)}, {side.name}_cu {list(cu.shape)}", "flat ids, [K + 1]"
        )
    length = cu.diff()
    if device.type == "cpu" and (int(cu[0]) < 0 or int(cu[-1]) > len(ids) or bool((length < 0).any())):
        raise bad_input(f"{side.name}_cu does not rise from 0 to {len(ids)}", "cumulative lengths, 0 first")
    ids = ids if ids.stride(0) == 1 else ids.contiguous()
    return Sentences(ids, cu[:-1], length, int(length.max()) if len(length) else 0)


def _ragged(rows: Sequence[Any]) -> Sentences:
    """Sentences of a list, one after another."""
    parts = [row.tolist() if isinstance(row, np.ndarray) else row for row in rows]
    if parts and all(isinstance(part, Tensor) for part in parts):
        if any(part.ndim != 1 for part in parts):
            raise bad_input("a sentence is not a flat list of ids", "each sentence is a list of integers")
        ids = _integers(torch.cat(parts), "a sentence")
    else:
        ids = _listed(parts)
    length = torch.tensor([len(part) for part in parts], dtype=torch.int64)
    return Sentences(ids.cpu(), length.cumsum(0) - length, length, int(length.max()) if len(parts) else 0)


def _listed(parts: Sequence[Any]) -> Tensor:
    try:
        array = np.asarray(list(chain.from_iterable(parts)))
    except (TypeError, ValueError, OverflowError) as error:
        raise bad_input(f"not lists of ids: {error}", "each sentence is a list of integers") from error
    if not array.size:
        return torch.zeros(0, dtype=torch.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu" or not np.can_cast(array.dtype, np.int64):
        raise bad_input(f"ids are {array.dtype}", "each sentence is a list of integers of at most 64 bits")
    return torch.from_numpy(array.astype(np.int64, copy=False))


def _integers(ids: Tensor, name: str) -> Tensor:
    """Ids as int32 or int64."""
    if ids.dtype in (torch.int32, torch.int64):
        return ids.detach()
    if ids.dtype in (torch.int8, torch.int16, torch.uint8, torch.uint16, torch.uint32):
        return ids.to(torch.int64)
    if not ids.numel() and ids.dtype == torch.float32:  # torch.tensor([])
        return ids.to(torch.int64)
    raise bad_input(f"{name}: ids are {ids.dtype}", "token ids are integers of at most 64 bits")


def _whole(values: Any, name: str) -> Tensor:
    try:
        found = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise bad_input(f"{name}: {error}", "whole numbers") from error
    return _integers(found, name).to(torch.int64)


def _lengths(side: Side, known: Sentences) -> Tensor:
    """Lengths the caller gave, one a sentence; -1 where there is no reference."""
    length = _whole(side.length, f"{side.name}_len").flatten()
    if length.shape != known.length.shape:
        raise bad_input(
            f"{side.name}_len has {len(length)} lengths", f"there are {len(known.length)} sentences"
        )
    if length.device.type == "cpu" and known.length.device.type == "cpu":
        least = 0 if side.name == "hyp" else -1
        wrong = torch.nonzero((length > known.length) | (length < least)).flatten()
        if len(wrong):
            k = int(wrong[0])
            hint = f"lengths count ids, {least} to {int(known.length[k])} here"
            raise bad_input(f"{side.name}_len is {int(length[k])} for sentence {k}", hint)
    return length.to(known.length.device)


def _complete(refs: Sentences, first: Tensor, last: Tensor) -> None:
    """Raise BnError where a row has no reference, or references that are not there."""
    if len(first) and (int(first.min()) < 0 or int(last.max()) > len(refs.length)):
        raise bad_input(f"ref_rows go beyond {len(refs.length)} references", "cumulative counts, 0 first")
    there = torch.cat([refs.length.new_zeros(1), (refs.length >= 0).cumsum(0)])
    bare = torch.nonzero(there[last] - there[first] <= 0).flatten()
    if len(bare):
        raise bad_input(f"row {int(bare[0])} has no reference", "each sentence needs one, be it empty")
