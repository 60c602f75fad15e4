"""Attention of one new token over packed rows and the few exact tokens, in place of a layer that is decoded whole."""

from __future__ import annotations

import functools
import weakref
from typing import Any

import torch
from torch import Tensor

from bntools.core.methods.kv import watch
from bntools.core.methods.kv.fixed_code import FixedRows, join_parts
from bntools.core.methods.kv.watch import AttentionCall

_HARMLESS = frozenset(
    {
        "scaling",
        "is_causal",
        "position_ids",
        "cache_position",
        "use_cache",
        "return_dict",
        "sliding_window",
        "dropout",
    }
)
"""Keywords that change nothing for a single query: windows are in the mask, too. Any other that is set is unknown."""


class PackedSteps:
    """Of one layer: whether its attention function takes what the cache hands out, and the answer from packed rows.

    The first passes get all keys and values, and are watched; only where these very tensors reach the attention
    function does a later step of one token get the exact ones alone, whose attention is then answered here.
    """

    def __init__(self, config: Any) -> None:
        self.config = weakref.ref(config)
        self.confirmed = self.pending = False
        self.answered = 0

    def ready(self, coder: Any, new: Tensor) -> bool:
        """Whether the attention of new tokens [B, heads, n, d] can be answered from packed rows."""
        if self.pending:
            raise RuntimeError(
                "attention of a step was not computed: the model's attention changed under its cache"
            )
        config = self.config()
        return (
            self.confirmed and new.shape[2] == 1 and new.device.type == "cpu" and isinstance(coder, FixedRows)
            and not torch.is_grad_enabled() and config is not None and watch.is_attached(config)
        )  # fmt: skip

    def hand_out(self, layer: Any, keys: Tensor, values: Tensor, whole: bool) -> None:
        """Have the attention function answered here that gets these tensors of a layer, all of them or the exact."""
        self.pending = not whole
        answer = self._confirm if whole else functools.partial(self._answer, layer)
        watch.own(keys, functools.partial(answer, values))

    def _confirm(self, values: Tensor, call: AttentionCall) -> None:
        self.confirmed = call.value is values

    def _answer(self, layer: Any, values: Tensor, call: AttentionCall) -> Any:
        if call.value is not values:
            raise RuntimeError("attention takes other values than its cache handed out")
        self.pending = False
        if _is_plain(call):
            self.answered += 1
            return attend_step(layer.coder, layer.blocks, call), None
        keys, values = layer.dense()
        return call._replace(key=keys, value=values).run()


def _is_plain(call: AttentionCall) -> bool:
    """Whether the query sees every token, by nothing but a softmax."""
    if call.options.get("dropout") or call.query.shape[2] != 1:
        return False
    if any(
        value is not None and value is not False
        for name, value in call.options.items()
        if name not in _HARMLESS
    ):
        return False
    mask = call.mask
    return mask is None or bool(mask.all() if mask.dtype == torch.bool else not mask.any())


def attend_step(coder: FixedRows, blocks: list[Any], call: AttentionCall) -> Tensor:
    """Outputs [B, 1, heads, d] of one query a row over the blocks of each row and the exact tokens of the call."""
    batch, heads, _, d = call.query.shape
    groups = call.key.shape[1]
    q = call.query.float().reshape(batch, groups, heads // groups, d) * call.scaling
    logits = q @ call.key.float().mT
    sums, plain = logits.logsumexp(-1), logits.softmax(-1) @ call.value.float()
    out = torch.empty(batch, groups, heads // groups, d)
    for row, coded in enumerate(blocks):
        chosen = coder.select(coded)
        for head in range(groups):
            parts = coder.parts(head, q[row, head], *chosen[head])
            out[row, head] = join_parts([(sums[row, head], plain[row, head]), *parts])
    return out.reshape(batch, 1, heads, d).to(call.query.dtype)
