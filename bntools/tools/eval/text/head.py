"""The output head of a language model apart from its body, so that logits are made a few positions at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bntools.core.architecture import output_head
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


@dataclass(frozen=True)
class OwnHead:
    """Logits by the model's own forward pass from its output head on, where that is not a plain `Head`."""

    weight: Tensor
    make: Callable[[Tensor], Tensor]

    def logits(self, hidden: Tensor) -> Tensor:
        """[n, width] to float32 [n, vocabulary]."""
        return self.make(hidden.to(self.weight.dtype))

    chunks = Head.chunks


@torch.no_grad()
def split(model: Any) -> Head | OwnHead:
    """The head of a transformers model, checked on a few tokens against the logits the model itself gives.

    Raises BnError: exit 1 for a model without a head, 3 for one that is not run on token ids alone.
    """
    inner = model.get_input_embeddings()
    device = next(model.parameters()).device
    rows = int(getattr(inner, "num_embeddings", 0) or len(inner.weight))
    probe = torch.arange(1, 9, device=device)[None] % rows
    hidden = hidden_states(model, probe)[0]
    expected = model(probe, **output_head.no_cache(model)).logits[0].float()
    layer = model.get_output_embeddings()
    head = _plain(model, layer)
    tolerance = 1e-3 if layer.weight.dtype == torch.float32 else 5e-2
    candidates = [head, OwnHead(layer.weight.detach(), output_head.own_logits(model))]
    for one in candidates:
        logits = one.logits(hidden)
        if logits.shape == expected.shape and torch.allclose(
            logits, expected, rtol=tolerance, atol=tolerance
        ):
            return one
    raise BnError(f"the logits of {type(model).__name__} are not made of what its output head is fed")


def _plain(model: Any, layer: Any) -> Head:
    config = model.config.get_text_config()
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(
        getattr(config, "logits_scaling", None) or 1.0
    )
    cap = getattr(config, "final_logit_softcapping", None)
    return Head(layer.weight.detach(), getattr(layer, "bias", None), scale, cap)


@torch.no_grad()
def hidden_states(model: Any, ids: Tensor) -> Tensor:
    """What the output head is fed [batch, n, width]."""
    return output_head.states(model, ids)
