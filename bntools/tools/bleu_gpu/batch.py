"""Sentences however they are given (tensors, nested tensors, flat ones, lists) as the kernels take them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bntools.core.errors import bad_input, usage
from bntools.kernels.ngrams import loops as ngram_loops
from bntools.kernels.ngrams import ngrams
from bntools.kernels.ngrams.ngrams import Sentences

Ids = Tensor | Sequence[Any]

SMALL = 4096
"""Up to so many rows, what only the shape of a batch decides is kept for the next one."""


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
        return s, tuple(ids.shape[:-1])
    return s, (len(s.length),)


def _references(
    side: Side, rows: Ids | None, device: torch.device
) -> tuple[Sentences, Tensor, Tensor, int | None]:
    """All references, the first and last of each row, and the most a row has where that is known."""
    ids = side.ids
    if isinstance(ids, Tensor):
        s = _sentences(side, device)
        if rows is not None:
            bounds = _whole(rows, "ref_rows").to(device)
            return s, bounds[:-1], bounds[1:], None
        several = not ids.is_nested and side.cu is None and ids.ndim == 3
        each, count = (ids.shape[1], ids.shape[0]) if several else (1, len(s.length))
        small = device.type == "cpu" and count <= SMALL
        return s, *(_bounds_kept if small else _bounds)(count, each, device), each
    if any(_is_id(reference) for row in ids for reference in row):
        raise bad_input(
            "refs is a list of lists of ids", "give a list of references a row: [[[5, 7], [5, 8]], ...]"
        )
    counts = np.array([len(row) for row in ids], np.int64)
    length = side.length
    if length is not None and not isinstance(length, Tensor):
        length = list(chain.from_iterable(x if isinstance(x, Sequence) else [x] for x in length))
    s = _sentences(side._replace(ids=list(chain.from_iterable(ids)), length=length), device)
    last = counts.cumsum()
    most = int(counts.max()) if len(counts) else 0
    return s, torch.from_numpy(last - counts).to(device), torch.from_numpy(last).to(device), most


def _is_id(value: object) -> bool:
    return isinstance(value, int) or (isinstance(value, Tensor) and value.ndim == 0)


def _sentences(side: Side, device: torch.device) -> Sentences:
    if (side.length is not None) + (side.mask is not None) + (side.cu is not None) > 1:
        given = [x for x in ("length", "mask", "cu") if getattr(side, x) is not None]
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
    if known.ids.device == device:
        return known
    return Sentences(*(x.to(device) for x in known[:3]), known.width)


def _dense(side: Side, ids: Tensor) -> Sentences:
    """Sentences of a tensor [..., width], in place wherever the last dimension is contiguous."""
    if ids.ndim not in (2, 3):
        hint = "references" if side.name == "refs" else "group"
        raise bad_input(
            f"{side.name} has shape {list(ids.shape)}", f"[batch, length] or [batch, {hint}, length]"
        )
    if side.mask is not None:
        return _masked(ids, side.mask, side.name)
    ids = ids if ids.stride(-1) == 1 or ids.shape[-1] < 2 else ids.contiguous()
    flat = ids.view(-1) if ids.is_contiguous() else _span(ids)
    small = ids.is_cpu and ids.shape[0] <= SMALL
    start, length = (_places_kept if small else _places)(ids.shape, ids.stride(), ids.device)
    return Sentences(flat, start, length, ids.shape[-1])


def _span(ids: Tensor) -> Tensor:
    """[n] what lies between the first and the last id of a view whose rows are contiguous."""
    span = 1 + sum((n - 1) * stride for n, stride in zip(ids.shape, ids.stride(), strict=True))
    return ids.as_strided((span if ids.numel() else 0,), (1,))


def _places(shape: tuple[int, ...], strides: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Where each row of a tensor begins, and its width; made on the device, so that nothing is copied to it."""
    steps = [torch.arange(n, device=device) * s for n, s in zip(shape[:-1], strides, strict=False)]
    start = steps[0] if len(steps) == 1 else (steps[0][:, None] + steps[1]).flatten()
    return start, torch.full_like(start, shape[-1])


def _bounds(count: int, each: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The first and one behind the last reference of rows that have `each`."""
    first = torch.arange(count, device=device) * each
    return first, first + each


_places_kept, _bounds_kept = functools.lru_cache(16)(_places), functools.lru_cache(16)(_bounds)
"""In a loop over small batches making these costs half as much as counting. Nothing writes to them."""


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
    length = np.array([len(part) for part in parts], np.int64)
    width = int(length.max()) if len(parts) else 0
    return Sentences(ids.cpu(), *map(torch.from_numpy, (length.cumsum() - length, length)), width)


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
        return ids
    if ids.dtype in (torch.int8, torch.int16, torch.uint8, torch.uint16, torch.uint32):
        return ids.to(torch.int64)
    if not ids.numel() and ids.dtype == torch.float32:  # torch.tensor([])
        return ids.to(torch.int64)
    raise bad_input(f"{name}: ids are {ids.dtype}", "token ids are integers of at most 64 bits")


def _whole(values: Any, name: str) -> Tensor:
    try:
        tensor = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise bad_input(f"{name}: {error}", "whole numbers") from error
    return _integers(tensor, name).to(torch.int64)


def _lengths(side: Side, known: Sentences) -> Tensor:
    """Lengths the caller gave, one a sentence; -1 where there is no reference."""
    length = _whole(side.length, f"{side.name}_len").flatten()
    if length.shape != known.length.shape:
        raise bad_input(
            f"{side.name}_len has {len(length)} lengths", f"there are {len(known.length)} sentences"
        )
    if length.is_cpu and known.length.is_cpu:
        given, most, least = length.numpy(), known.length.numpy(), 0 if side.name == "hyp" else -1
        k = ngram_loops.out_of_range(given, most, least)
        if k >= 0:
            hint = f"lengths count ids, {least} to {int(most[k])} here"
            raise bad_input(f"{side.name}_len is {int(given[k])} for sentence {k}", hint)
        return length
    return length.to(known.length.device)


def _complete(refs: Sentences, first: Tensor, last: Tensor) -> None:
    """Raise BnError where a row has no reference, or references that are not there."""
    length, one, two = refs.length.numpy(), first.numpy(), last.numpy()
    bare = ngram_loops.without_reference(length, one, two)
    if bare == len(one) > 0:
        raise bad_input(f"ref_rows go beyond {len(length)} references", "cumulative counts, 0 first")
    if bare >= 0:
        raise bad_input(f"row {bare} has no reference", "each sentence needs one, be it empty")
