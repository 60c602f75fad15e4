"""One layer of the cache: exact first tokens, coded blocks, and the newest tokens exact until 32 more are full."""

from __future__ import annotations

import weakref
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from bntools.core.methods.kv import token_weights
from bntools.core.methods.kv.entropy_code import BLOCK, CodedBlock

_HALVES = (torch.float16, torch.bfloat16)


class RowCoder(Protocol):
    """What codes the keys and values [heads, n, d] of one row of a batch."""

    @property
    def weighted(self) -> bool: ...

    def encode(self, k: Tensor, v: Tensor, classes: NDArray[np.int8]) -> list[CodedBlock]: ...

    def decode(self, blocks: list[CodedBlock]) -> tuple[Tensor, Tensor]: ...


class PlannedLayer(CacheLayerMixin):
    """Keys and values of one layer; `update` gives all of them back as plain tensors, which are not kept.

    Every token is coded once, in blocks of 32 counted from the first that is not exact, whatever portions it came in.
    """

    is_sliding = False
    is_croppable = True

    def __init__(self, coder: RowCoder, sink: int, recent: int, gamma: float = 0.0) -> None:
        super().__init__()
        self.coder, self.sink, self.recent, self.gamma = coder, sink, recent, gamma
        self.held = torch.float16  # of exact tokens
        self.steps: Any = None  # PackedSteps, where attention over packed rows is in use
        self.reset()

    def reset(self) -> None:
        self.blocks: list[list[CodedBlock]] = []
        self.first: Tensor | None = None  # [2, B, heads, sink, d]
        self.newest: Tensor | None = None  # [2, B, heads, n, d]
        self.received: Tensor | None = None  # [B, heads, length]
        self._shown: weakref.ref[Tensor] | None = None  # the keys that attention was last handed
        self.is_initialized = False
        self.keys = self.values = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.held = self.dtype if self.dtype in _HALVES else torch.float16
        batch, heads, _, d = key_states.shape
        empty = torch.zeros(2, batch, heads, 0, d, dtype=self.held, device=self.device)
        self.first, self.newest = empty, empty
        self.blocks = [[] for _ in range(batch)]
        self.is_initialized = True

    @property
    def coded(self) -> int:
        """Tokens in blocks."""
        return sum(block.used for block in self.blocks[0]) if self.blocks else 0

    @property
    def batch_size(self) -> int:
        return len(self.blocks) if self.blocks else -1

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append tokens [B, heads, n, d], after what is now old enough was coded; returns all keys and values.

        Of a step that is answered from packed rows, the exact ones alone.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.flush()
        self.append(key_states, value_states)
        whole = self.steps is None or not self.coded or not self.steps.ready(self.coder, key_states)
        keys, values = self.dense() if whole else self.exact()
        if self.steps is not None:
            self.steps.hand_out(self, keys, values, whole)
        self._shown = weakref.ref(keys)
        return keys, values

    def append(self, k: Tensor, v: Tensor) -> None:
        """Take tokens in, exact for now."""
        assert self.first is not None
        assert self.newest is not None
        limit = torch.finfo(self.held).max
        new = torch.stack([k, v]).clamp(-limit, limit).to(self.held)
        room = max(self.sink - self.first.shape[3], 0) if not self.coded and not self.newest.shape[3] else 0
        self.first = torch.cat([self.first, new[..., :room, :]], 3)
        self.newest = torch.cat([self.newest, new[..., room:, :]], 3)

    def flush(self, everything: bool = False) -> None:
        """Code the tokens that left the exact ring, 32 at a time; with `everything` all of them."""
        if self.newest is None:
            return
        spare = self.newest.shape[3] - (0 if everything else self.recent)
        count = max(spare, 0) if everything else max(spare, 0) // BLOCK * BLOCK
        if not count:
            return
        part, self.newest = self.newest[..., :count, :].float().cpu(), self.newest[..., count:, :].clone()
        classes = self._classes(count)
        for row, blocks in enumerate(self.blocks):
            blocks += self.coder.encode(part[0, row], part[1, row], classes[row])

    def _classes(self, count: int) -> NDArray[np.int8]:
        """Classes [B, heads, count] of the next tokens to be coded, by the attention they got so far."""
        assert self.first is not None
        shape = (*self.first.shape[1:3], count)
        if not self.coder.weighted or self.gamma == 0 or self.received is None:
            return np.zeros(shape, np.int8)
        start = self.first.shape[3] + self.coded
        classes = token_weights.step_classes(self.received[..., self.first.shape[3] :], self.gamma)
        offset = start - self.first.shape[3]
        return classes[..., offset : offset + count].numpy()

    def observe(self, q: Tensor, k: Tensor, scaling: float) -> None:
        """Add the attention that queries [B, heads, n, d], the newest tokens', pay to all keys.

        Keys that are not this layer's own are another run of the model, with another cache or none.
        """
        if not self.coder.weighted or self.gamma == 0 or self._shown is None or self._shown() is not k:
            return
        fresh = token_weights.received(q, k, scaling).cpu()
        share = min(q.shape[2], 2 * token_weights.PROBES) / (2 * token_weights.PROBES)
        if self.received is not None and len(self.received) == len(fresh):
            old = self.received
            fresh[..., : old.shape[-1]] = (1 - share) * old + share * fresh[..., : old.shape[-1]]
        self.received = fresh

    def dense(self) -> tuple[Tensor, Tensor]:
        """All keys and values in the model's type: [B, heads, length, d]."""
        assert self.first is not None
        assert self.newest is not None
        parts = [self.first.to(self.dtype)]
        if self.coded:
            rows = [torch.stack(self.coder.decode(blocks)) for blocks in self.blocks]
            parts.append(torch.stack(rows, 1).to(self.device, self.dtype))
        both = torch.cat([*parts, self.newest.to(self.dtype)], 3)
        return both[0], both[1]

    def exact(self) -> tuple[Tensor, Tensor]:
        """Keys and values that are in no block, in the model's type."""
        assert self.first is not None
        assert self.newest is not None
        both = torch.cat([self.first, self.newest], 3).to(self.dtype)
        return both[0], both[1]

    def nbytes(self) -> int:
        """Bytes of what is held, exact tokens in 16 bits."""
        exact = sum(part.numel() * 2 for part in (self.first, self.newest) if part is not None)
        return exact + sum(len(block.data) for blocks in self.blocks for block in blocks)

    def get_seq_length(self) -> int:
        if self.first is None or self.newest is None:
            return 0
        return self.first.shape[3] + self.coded + self.newest.shape[3]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        return -1

    def crop(self, tokens_to_remove: int) -> None:
        """Drop the last tokens; what is coded stays as it was coded."""
        if tokens_to_remove > 0:
            raise ValueError(
                f"crop({tokens_to_remove}): the number of tokens to remove is given as a negative one"
            )
        if self.first is None or self.newest is None:
            return
        left = max(self.get_seq_length() + tokens_to_remove, 0)
        if self.received is not None:
            self.received = self.received[..., :left]
        exact, coded = min(left, self.first.shape[3]), self.coded
        self.newest = self.newest[..., : max(left - self.first.shape[3] - coded, 0), :]
        for blocks in self.blocks:
            keep, at = max(left - self.first.shape[3], 0), 0
            for index, block in enumerate(blocks):
                if at >= keep:
                    del blocks[index:]
                    break
                blocks[index] = block.cut(min(block.used, keep - at))
                at += block.used
        self.first = self.first[..., :exact, :]

    def _select(self, indices: list[int]) -> None:
        if self.first is None or self.newest is None:
            return
        self.first, self.newest = self.first[:, indices], self.newest[:, indices]
        self.received = None if self.received is None else self.received[indices]
        self.blocks = [list(self.blocks[i]) for i in indices]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._select(beam_idx.tolist())

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._select([i for i in range(len(self.blocks)) for _ in range(repeats)])

    def batch_select_indices(self, indices: Tensor) -> None:
        self._select(torch.arange(len(self.blocks))[indices].tolist())
