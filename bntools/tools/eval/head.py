"""The output head of a language model apart from its body, so that logits are made a few positions at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bntools.core.errors import BnError

CHUNK_BYTES = 32 << 20


@dataclass(frozen=True)
class Head:
    """logits = cap(scale * (h W^T + b)). weight: [vocabulary, width]; cap: c tanh(x / c) where the model has one."""

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """[n, width] to float32 [n, vocabulary]."""
        values = nn.functional.linear(hidden.to(self.weight.dtype), self.weight, self.bias).float()
        if self.scale != 1.0:
            values = values * self.scale
        return values if self.softcap is None else self.softcap * torch.tanh(values / self.softcap)

    def chunks(self, count: int) -> Iterator[slice]:
        """Slices of `count` positions whose float32 logits stay within 32 MB."""
        step = max(1, CHUNK_BYTES // (4 * self.weight.shape[0]))
        return (slice(start, min(start + step, count)) for start in range(0, count, step))


@torch.no_grad()
def split(model: Any) -> Head:
    """The head of a transformers model, checked on a few tokens against the logits the model itself gives.

    Raises BnError (exit 1) for an architecture whose logits are made in a way this does not know.
    """
    layer = model.get_output_embeddings()
    if layer is None:
        raise BnError(
            f"{type(model).__name__} has no output head", "only causal language models have a perplexity"
        )
    config = model.config
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(
        getattr(config, "logits_scaling", None) or 1.0
    )
    head = Head(
        layer.weight.detach(),
        getattr(layer, "bias", None),
        scale,
        getattr(config, "final_logit_softcapping", None),
    )
    probe = torch.arange(1, 9, device=head.weight.device)[None] % head.weight.shape[0]
    expected = model(probe, use_cache=False).logits[0].float()
    found = head.logits(hidden_states(model, probe)[0])
    tolerance = 1e-3 if head.weight.dtype == torch.float32 else 5e-2
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=tolerance, atol=tolerance):
        raise BnError(
            f"the logits of {type(model).__name__} are not its output head applied to its hidden states"
        )
    return head


@torch.no_grad()
def hidden_states(model: Any, ids: Tensor) -> Tensor:
    """Final hidden states [batch, n, width] of the body."""
    return model.base_model(ids, use_cache=False).last_hidden_state
