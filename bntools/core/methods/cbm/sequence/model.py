"""A transformer with one channel a concept (MoTIF, arXiv 2509.20899): forward pass, and what each part adds.

Concept scores s_tk of windows t, max(0, cosine), standardised by moments of the training windows. In each channel k
alone: a code of the window's place, a gain and a shift, attention over the sequence's windows, a two-layer network,
both with a residual. Then c_tk = max(0, softplus(a_k z_tk + b_k) - log 2), logits_t = W c_t + bias, and of the sequence
(1/tau) log mean_t exp(tau logits_t).

Differences to the published form, which `paper` brings back: its LayerNorm over concepts mixes the channels; its
sinusoidal code gives each channel a place code of another frequency, so what a concept can know of time depends on its
number, and values of one number mix place with strength; its pooling is a sum, which grows with a sequence's length.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bntools.core.methods.cbm.bottleneck import Floats, unit

CHANNEL = ("place", "gain", "shift", "query", "query_shift", "key", "key_shift", "key_place", "value", "value_shift",
           "value_place", "sharpness",
           "gain_2", "shift_2", "inner", "inner_shift", "outer", "outer_shift", "slope", "offset")  # fmt: skip
"""Parameters with one number a concept."""
_CELLS = 1 << 24
"""Numbers of an attention map worked on at once."""
_LOG_2 = 0.6931471805599453
Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class SequenceModel:
    """vectors [K, d]; mean, std [K] of training scores; parameters: `CHANNEL` [K] each, weight [C, K], bias [C].

    baselines: {name: (map [C, K], shift)} on the mean over windows of standardised scores.
    """

    vectors: Floats
    mean: Floats
    std: Floats
    parameters: Parameters
    names: list[str]
    classes: list[str]
    labels: NDArray[np.int64]
    normalize: bool = False
    paper: bool = False
    temperature: float = 1.0
    baselines: dict[str, tuple[Floats, Floats]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def scores(self, embeddings: Floats) -> Floats:
        """Standardised concept scores of windows, [M, K]; a constant concept is 0."""
        prepared = unit(embeddings) if self.normalize else embeddings
        gain = np.where(self.std > 0, 1 / np.where(self.std > 0, self.std, 1), 0).astype(np.float32)
        return (np.maximum(prepared @ self.vectors.T, 0) - self.mean) * gain


class Pass(NamedTuple):
    """logits [B, C] of sequences, window_logits [B, T, C], concepts c [B, T, K]."""

    logits: Tensor
    window_logits: Tensor
    concepts: Tensor


class Form(NamedTuple):
    """What of the published form is computed, the pooling's temperature, and whether attention looks at all alike."""

    paper: bool = False
    temperature: float = 1.0
    uniform: bool = False


def initial(concepts: int, classes: int, generator: torch.Generator) -> Parameters:
    """Parameters before training: attention near uniform, a network near nothing, a head near zero."""
    values = {name: torch.zeros(concepts) for name in CHANNEL}
    for name in ("gain", "gain_2", "slope", "query", "key", "inner", "query_shift"):
        values[name] += 1
    for name in ("value", "value_place", "outer"):
        values[name] += 0.3
    for name in CHANNEL:
        values[name] += 0.05 * torch.randn(concepts, generator=generator)
    weight = 0.05 * torch.randn(classes, concepts, generator=generator)
    return {**values, "weight": weight, "bias": torch.zeros(classes)}


def forward(p: Parameters, x: Tensor, mask: Tensor, form: Form) -> Pass:
    """The pass of standardised scores x [B, T, K]; mask [B, T]: windows that are there. Padding changes nothing."""
    place = _place(x.shape[2], mask, form)
    z = x + (place if form.paper else place * p["place"])
    z = z + _attend(p, (_normal(p, z, form, ""), place), mask, form)
    inner = functional.gelu(_normal(p, z, form, "_2") * p["inner"] + p["inner_shift"])
    z = z + inner * p["outer"] + p["outer_shift"]
    concepts = (functional.softplus(z * p["slope"] + p["offset"]) - _LOG_2).clamp(min=0)
    windows = concepts @ p["weight"].T + p["bias"]
    return Pass(pool(windows, mask, form), windows, concepts)


def pool(windows: Tensor, mask: Tensor, form: Form) -> Tensor:
    """Logits of sequences from logits of windows [B, T, C]: a smooth maximum."""
    hidden = (form.temperature * windows).masked_fill(~mask[..., None], -torch.inf)
    total = hidden.logsumexp(1)
    if not form.paper:
        total = total - mask.sum(1, keepdim=True).float().log()
    return total / form.temperature


def _place(count: int, mask: Tensor, form: Form) -> Tensor:
    """From -1 at a sequence's first window to 1 at its last, [B, T, 1]; published: a code a channel, [B, T, K]."""
    steps = torch.arange(mask.shape[1], dtype=torch.float32)
    if form.paper:
        rate = 10000.0 ** (-(torch.arange(count) // 2 * 2).float() / count)
        angle = steps[:, None] * rate
        return torch.where(torch.arange(count) % 2 == 0, angle.sin(), angle.cos()).expand(len(mask), -1, -1)
    length = mask.sum(1, keepdim=True).float()
    return torch.where(length > 1, 2 * steps / (length - 1).clamp(min=1) - 1, 0.0)[..., None]


def _normal(p: Parameters, z: Tensor, form: Form, which: str) -> Tensor:
    """A gain and a shift a channel; of the published form, behind a normalisation over channels."""
    if form.paper:
        z = functional.layer_norm(z, z.shape[-1:])
    return z * p[f"gain{which}"] + p[f"shift{which}"]


def _attend(p: Parameters, seen: tuple[Tensor, Tensor], mask: Tensor, form: Form) -> Tensor:
    """What attention adds, [B, T, K]: channels in blocks, so that few maps [T, T] are held at once.

    seen: normalised channels and places. A value reads the place by a weight of its own: what a concept says of time
    need not depend on how strong it is.
    """
    h, place = seen
    count, parts = h.shape[2], []
    step = max(1, _CELLS // max(h.shape[0] * h.shape[1] ** 2, 1))
    for start in range(0, count, step):
        channels = slice(start, min(start + step, count))
        value = h[..., channels] * p["value"][channels] + p["value_shift"][channels]
        if not form.paper:
            value = value + place * p["value_place"][channels]
        parts.append(torch.einsum("bktu,buk->btk", attention(p, seen, mask, channels, form), value))
    return torch.cat(parts, -1)


def attention(
    p: Parameters, seen: tuple[Tensor, Tensor], mask: Tensor, channels: slice, form: Form
) -> Tensor:
    """Maps [B, k, T, T] of some channels: how far window t of a channel looks at window u."""
    h, place = seen
    query = h[..., channels] * p["query"][channels] + p["query_shift"][channels]
    key = h[..., channels] * p["key"][channels] + p["key_shift"][channels]
    if not form.paper:
        key = key + place * p["key_place"][channels]
    sharp = p["sharpness"][channels].clamp(-5, 5).exp()
    scores = torch.einsum("btk,buk->bktu", query * sharp, key)
    if form.uniform:
        scores = torch.zeros_like(scores)
    return scores.masked_fill(~mask[:, None, None, :], -torch.inf).softmax(-1)


def maps(model: SequenceModel, scores: Floats, channels: list[int]) -> Floats:
    """Attention maps [k, T, T] of some concepts in one sequence of scores [T, K]."""
    form, mask = Form(model.paper, model.temperature), torch.ones(1, len(scores), dtype=torch.bool)
    x = torch.from_numpy(scores)[None]
    with torch.no_grad():
        place = _place(x.shape[2], mask, form)
        z = x + (place if form.paper else place * model.parameters["place"])
        seen = (_normal(model.parameters, z, form, ""), place)
        shown = [attention(model.parameters, seen, mask, slice(k, k + 1), form)[0, 0] for k in channels]
    return torch.stack(shown).numpy() if shown else np.zeros((0, len(scores), len(scores)), np.float32)


def predict(
    model: SequenceModel, scores: Floats, starts: NDArray[np.int64], *, uniform: bool = False
) -> Floats:
    """Logits [N, C] of sequences; those of one length are worked on together, so that nothing is padded."""
    form, lengths = Form(model.paper, model.temperature, uniform), np.diff(starts)
    result = np.zeros((len(lengths), len(model.classes)), np.float32)
    for length in np.unique(lengths):
        mine = np.flatnonzero(lengths == length)
        size = max(1, _CELLS // (int(length) ** 2 * min(len(model.names), 64)))
        for part in np.split(mine, range(size, len(mine), size)):
            x = torch.from_numpy(scores[starts[part][:, None] + np.arange(length)])
            with torch.no_grad():
                whole = forward(model.parameters, x, torch.ones(x.shape[:2], dtype=torch.bool), form)
            result[part] = whole.logits.numpy()
    return result
