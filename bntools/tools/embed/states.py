"""Rows from models: hidden states of windows, one pooled row a text; each a generator of batches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bntools.core.architecture.sites import Reached, watching
from bntools.tools.embed.settings import Settings
from bntools.tools.embed.texts import Windows


class Piece(NamedTuple):
    """Rows of one batch: states of each layer [n, d], and columns [n]."""

    states: list[Tensor]
    columns: dict[str, Any]


class Batch(NamedTuple):
    """Windows of one length that run together."""

    ids: np.ndarray
    doc: np.ndarray
    pos: np.ndarray


def batches_of(windows: list[Windows], batch_tokens: int) -> list[Batch]:
    """Windows cut into batches of about so many tokens, in order."""
    batches = []
    for part in windows:
        size = max(1, batch_tokens // part.ids.shape[1])
        starts = range(0, len(part.ids), size)
        batches += [
            Batch(part.ids[a : a + size], part.doc[a : a + size], part.pos[a : a + size]) for a in starts
        ]
    return batches


@torch.no_grad()
def token_rows(model: Any, batches: list[Batch], settings: Settings) -> Iterator[Piece]:
    """A row a token: the states of each layer, with token, pos and doc."""
    for batch in batches:
        states = forward(model, torch.from_numpy(batch.ids.astype(np.int64)), None, settings)
        columns = {"token": batch.ids.reshape(-1), "pos": batch.pos.reshape(-1), "doc": batch.doc.reshape(-1)}
        yield Piece([s.reshape(-1, s.shape[-1]) for s in states], columns)


@torch.no_grad()
def document_rows(model: Any, batches: list[Batch], settings: Settings) -> Iterator[Piece]:
    """A row a document that has a batch of its own, pooled over its tokens."""
    for batch in batches:
        states = forward(model, torch.from_numpy(batch.ids.astype(np.int64)), None, settings)
        mask = torch.ones(batch.ids.shape, dtype=torch.bool)
        yield Piece([pool(s, mask, settings) for s in states], {"doc": batch.doc[:, 0]})


@torch.no_grad()
def text_rows(model: Any, ids: list[list[int]], pad: int, settings: Settings) -> Iterator[Piece]:
    """A row a text by an encoder; texts of about one length run together and are padded to the longest of them."""
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    start = 0
    while start < len(order):
        longest, stop = 1, start
        while (
            stop < len(order)
            and max(longest, len(ids[order[stop]])) * (stop + 1 - start) <= settings.batch_tokens
        ):
            longest = max(longest, len(ids[order[stop]]))
            stop += 1
        chosen = order[start : max(stop, start + 1)]
        longest = max(len(ids[i]) for i in chosen)
        rows = torch.full((len(chosen), longest), pad)
        mask = torch.zeros(len(chosen), longest, dtype=torch.bool)
        for row, index in enumerate(chosen):
            rows[row, : len(ids[index])] = torch.tensor(ids[index])
            mask[row, : len(ids[index])] = True
        states = forward(model, rows, mask, settings)
        yield Piece([pool(s, mask, settings) for s in states], {"doc": np.array(chosen, np.int32)})
        start += len(chosen)


def forward(model: Any, ids: Tensor, mask: Tensor | None, settings: Settings) -> list[Tensor]:
    """States [B, T, d] at every wanted layer; the pass ends behind the last one. Without layers the model's output."""
    device = next(model.parameters()).device
    base = getattr(model, "base_model", model)
    options: dict[str, Any] = {"use_cache": False} if hasattr(model.config, "use_cache") else {}
    if mask is not None:
        options["attention_mask"] = mask.to(device).long()
    if not settings.layers:
        return [base(ids.to(device), **options).last_hidden_state.cpu()]
    seen: dict[int, Tensor] = {}

    def see(index: int, states: Tensor) -> None:
        seen[index] = states.cpu()

    wanted = [(layer, settings.site) for layer in settings.layers]
    with watching(model, wanted, see, stop=True), contextlib.suppress(Reached):
        base(ids.to(device), **options)
    return [seen[index] for index in range(len(wanted))]


def pool(states: Tensor, mask: Tensor, settings: Settings) -> Tensor:
    """One row a text [B, d]: the mean over its tokens, its first or its last one; of length 1 where asked for."""
    states = states.float()
    if settings.pool == "cls":
        rows = states[:, 0]
    elif settings.pool == "last":
        rows = states[torch.arange(len(states)), mask.sum(1) - 1]
    else:
        weight = mask.unsqueeze(-1).to(states.dtype)
        rows = (states * weight).sum(1) / weight.sum(1)
    return torch.nn.functional.normalize(rows, dim=1) if settings.normalize else rows
