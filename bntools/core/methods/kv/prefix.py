"""The exact cache of a text's beginning, what its last queries looked at, and logits of what comes after it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from bntools.core.errors import bad_input
from bntools.core.methods.kv import token_weights, watch

CacheLayers = dict[int, tuple[Tensor, Tensor]]
"""Keys and values [heads, n, d] of the planned layers."""
WINDOW = 32
"""Queries of SnapKV's observation window."""


@dataclass(frozen=True)
class ExactPrefix:
    """kv: exact, float16; received, window [key heads, n] by layer: attention of probe rows, and of the last 32."""

    ids: Tensor
    kv: CacheLayers
    received: dict[int, Tensor]
    window: dict[int, Tensor]
    others: list[Any]

    @property
    def values(self) -> int:
        return sum(k.numel() + v.numel() for k, v in self.kv.values())


@torch.no_grad()
def read_prefix(
    model: Any, ids: Tensor, planned: list[int], moments: watch.Watch | None = None, *,
    replace: watch.Replace | None = None,
) -> ExactPrefix:  # fmt: skip
    """Run the model over ids [n] and keep what its cache holds.

    moments: is shown all attention, too; replace: what attention is computed by, the plain one where None.
    """
    received: dict[int, Tensor] = {}
    window: dict[int, Tensor] = {}

    def see(layer: int, q: Tensor, k: Tensor, v: Tensor, scaling: float) -> None:
        if layer in planned and layer not in received:
            if k.shape != v.shape:
                raise bad_input(
                    f"keys of {k.shape[-1]} and values of {v.shape[-1]} numbers a head are not planned", ""
                )
            received[layer] = token_weights.received(q, k, scaling)[0].cpu()
            window[layer] = token_weights.received(q[:, :, -WINDOW:], k, scaling)[0].cpu()
            if moments is not None:
                moments(layer, q, k, v, scaling)

    cache = DynamicCache(config=model.config)
    with watch.watching(model, see, replace=replace):
        model(ids[None].to(model.device), past_key_values=cache, logits_to_keep=1)
    if set(planned) - set(received):
        raise bad_input(
            f"the attention of {type(model).__name__} is its own and cannot be watched",
            "name a model that takes it from transformers' table",
        )
    kv = {i: (cache.layers[i].keys[0].half().cpu(), cache.layers[i].values[0].half().cpu()) for i in planned}
    others = [None if i in kv else layer for i, layer in enumerate(cache.layers)]
    return ExactPrefix(ids, kv, received, window, others)


@torch.no_grad()
def read_on(
    model: Any, prefix: ExactPrefix, ids: Tensor, kv: CacheLayers | None = None,
    keep: Mapping[int, Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """Log-probabilities [n, vocabulary] after each of ids [n] that follow a prefix.

    kv: read in place of the exact cache; keep [key heads, length] bool by layer: tokens of the prefix that are there.
    """
    cache = DynamicCache()
    dtype = next(model.parameters()).dtype
    cache.layer_class_to_replicate = None
    layers: list[Any] = []
    for index, other in enumerate(prefix.others):
        if other is not None:
            layers.append(copy.deepcopy(other))
            continue
        layer = DynamicLayer()
        k, v = (kv or prefix.kv)[index]
        layer.update(k[None].to(model.device, dtype), v[None].to(model.device, dtype))
        layers.append(layer)
    cache.layers = layers
    run: Callable[[], Any] = lambda: model(ids[None].to(model.device), past_key_values=cache).logits[0]  # noqa: E731
    if keep is None:
        return run().float().log_softmax(-1).cpu()
    with watch.watching(model, narrow=_narrow(keep)):
        return run().float().log_softmax(-1).cpu()


def _narrow(keep: Mapping[int, Tensor]) -> Callable[..., Any]:
    def narrow(layer: int, query: Tensor, key: Tensor, mask: Any) -> Any:
        if layer not in keep:
            return mask
        here = keep[layer].to(query.device)
        groups, length = here.shape
        n, total = query.shape[2], key.shape[2]
        seen = torch.ones(groups, n, total, dtype=torch.bool, device=query.device).tril(total - n)
        seen[..., :length] &= here[:, None]
        seen = seen.repeat_interleave(query.shape[1] // groups, 0)[None]
        if mask is not None and mask.dtype != torch.bool:
            return mask + torch.zeros_like(seen, dtype=mask.dtype).masked_fill(
                ~seen, torch.finfo(mask.dtype).min
            )
        return seen if mask is None else seen & mask

    return narrow
