"""Caches of the papers and of common practice, as they are: quantisers and evictions, applied to an exact prefix."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bntools.core.methods.kv.prefix import WINDOW, CacheLayers, ExactPrefix
from bntools.kernels.attention import gaussian_levels

GROUP = 32
SINK = 4
HALF = 16
_SCALES = 32  # bits of a group: scale and least value, float16 each


@dataclass(frozen=True)
class SimulatedCache:
    """What a method leaves of a prefix: keys and values, the tokens that are there, and the bits a value it takes."""

    kv: CacheLayers
    keep: dict[int, Tensor] | None
    bits: float


def asymmetric(x: Tensor, bits: int, group: int) -> Tensor:
    """Rounded to 2^bits levels between the least and the largest of each group of the last axis."""
    n = x.shape[-1]
    padded = torch.nn.functional.pad(x, (0, -n % group), mode="replicate") if n % group else x
    parts = padded.reshape(*x.shape[:-1], -1, group)
    low, high = parts.amin(-1, keepdim=True), parts.amax(-1, keepdim=True)
    step = ((high - low) / (2**bits - 1)).half().float().clamp_min(1e-8)
    low = low.half().float()
    codes = ((parts - low) / step).round().clamp(0, 2**bits - 1)
    return (codes * step + low).reshape(padded.shape)[..., :n]


def kivi(prefix: ExactPrefix, bits: int = 2, residual: int = 128, group: int = GROUP) -> SimulatedCache:
    """KIVI (arXiv 2402.02750): keys by channel over groups of tokens, values by token; the newest tokens in 16 bits.

    The exact residual is an eighth of a short prefix at most, where it would be all of it.
    """
    kv, n = {}, len(prefix.ids)
    old = max(n - min(residual, n // 8), 0) // group * group
    for layer, (k, v) in prefix.kv.items():
        k, v = k.float(), v.float()
        keys = asymmetric(k[:, :old].transpose(1, 2), bits, group).transpose(1, 2) if old else k[:, :0]
        values = asymmetric(v[:, :old], bits, min(group, v.shape[-1])) if old else v[:, :0]
        kv[layer] = (torch.cat([keys, k[:, old:]], 1), torch.cat([values, v[:, old:]], 1))
    share = old / n
    return SimulatedCache(kv, None, share * (bits + _SCALES / group) + (1 - share) * HALF)


def per_token(prefix: ExactPrefix, bits: int = 4, group: int = 64) -> SimulatedCache:
    """Keys and values by token, the plain quantiser."""
    kv = {}
    for layer, pair in prefix.kv.items():
        kv[layer] = tuple(asymmetric(x.float(), bits, min(group, x.shape[-1])) for x in pair)
    width = next(iter(prefix.kv.values()))[0].shape[-1]
    return SimulatedCache(kv, None, bits + _SCALES / min(group, width))


def rotated(prefix: ExactPrefix, bits: int = 3, seed: int = 0, sink: int = 0) -> SimulatedCache:
    """A random rotation, Lloyd-Max levels of a Gaussian, a float16 norm a vector (TurboQuant's MSE form)."""
    levels = torch.from_numpy(gaussian_levels.gaussian(bits)[0])
    edges = (levels[1:] + levels[:-1]) / 2
    generator = torch.Generator().manual_seed(seed)
    kv, width, n = {}, 1, len(prefix.ids)
    for layer, pair in prefix.kv.items():
        width = pair[0].shape[-1]
        rotation = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
        parts = []
        for x in pair:
            y = x.float() @ rotation
            norm = y.norm(dim=-1, keepdim=True).half().float().clamp_min(1e-8)
            codes = levels[torch.bucketize(y / norm * math.sqrt(width), edges)]
            z = (codes * norm / math.sqrt(width)) @ rotation.T
            z[:, :sink] = x[:, :sink].float()
            parts.append(z)
        kv[layer] = (parts[0], parts[1])
    return SimulatedCache(kv, None, (bits + HALF / width) * (1 - sink / n) + HALF * sink / n)


def important(weight: Tensor, total: Tensor, tau: float) -> Tensor:
    """ZipVL's tokens of a layer [n] bool: the top p by `weight`, p the least number whose top `total` sum to tau."""
    order = total.sort(descending=True).values.double().cumsum(0)
    count = int((order < tau * order[-1] * (1 - 1e-9)).sum()) + 1
    keep = torch.zeros(len(weight), dtype=torch.bool)
    keep[weight.argsort(descending=True, stable=True)[: min(count, len(weight))]] = True
    return keep


def zipvl_tokens(received: Tensor, tau: float) -> Tensor:
    """The important tokens [n] bool of a layer from the attention [key heads, n] that each gets of a query.

    A tau of 1 is every token, also those whose share is lost in rounding.
    """
    weight = received.sum(0)
    if tau >= 1:
        return torch.ones(len(weight), dtype=torch.bool)
    visible = torch.arange(len(weight), 0, -1)  # queries that may see a token
    return important(weight, weight * visible, tau)


def zipvl(prefix: ExactPrefix, tau: float = 0.975, high: int = 4, low: int = 2) -> SimulatedCache:
    """ZipVL (arXiv 2410.08584) v1: 4 bits for the important tokens of a layer, 2 for the rest."""
    kv, share, numbers = {}, [], 1
    for layer, (k, v) in prefix.kv.items():
        keep = zipvl_tokens(prefix.received[layer], tau)
        k, v = k.float().clone(), v.float().clone()
        numbers = k.shape[0] * k.shape[2]
        for some, bits in ((keep, high), (~keep, low)):
            if some.any():
                k[:, some] = asymmetric(k[:, some].transpose(1, 2), bits, GROUP).transpose(1, 2)
                v[:, some] = asymmetric(v[:, some], bits, min(GROUP, v.shape[-1]))
        kv[layer] = (k, v)
        share.append(float(keep.float().mean()))
    p = sum(share) / len(share)
    return SimulatedCache(kv, None, p * high + (1 - p) * low + _SCALES / GROUP + 1 / (2 * numbers))


def zipvl_evict(prefix: ExactPrefix, tau: float = 0.975) -> SimulatedCache:
    """ZipVL v2: what is not important is dropped, the rest stays in 16 bits."""
    keep = {}
    for layer, (k, _) in prefix.kv.items():
        tokens = zipvl_tokens(prefix.received[layer], tau)
        keep[layer] = tokens[None].expand(k.shape[0], -1).clone()
    return _evicted(prefix, keep)


def _evicted(prefix: ExactPrefix, keep: dict[int, Tensor]) -> SimulatedCache:
    share = float(torch.stack([mask.float().mean() for mask in keep.values()]).mean())
    return SimulatedCache(prefix.kv, keep, HALF * share)


def _top(score: Tensor, count: int, recent: int, first: int = 0) -> Tensor:
    """Per head the last `recent` and `first` tokens and the best of the others: [heads, n] bool, `count` true."""
    n = score.shape[-1]
    score = score.clone()
    score[:, max(n - recent, 0) :] = math.inf
    score[:, :first] = math.inf
    keep = torch.zeros(score.shape, dtype=torch.bool)
    return keep.scatter(1, score.topk(min(count, n), dim=-1).indices, True)


def h2o(prefix: ExactPrefix, budget: float = 0.25) -> SimulatedCache:
    """H2O (arXiv 2306.14048): half of the budget the newest tokens, half those with the largest sum of attention."""
    n = len(prefix.ids)
    count = max(round(budget * n), 2)
    visible = torch.arange(n, 0, -1)
    keep = {layer: _top(w * visible, count, count // 2) for layer, w in prefix.received.items()}
    return _evicted(prefix, keep)


def _pooled(window: Tensor, width: int = 7) -> Tensor:
    return torch.nn.functional.avg_pool1d(window[None], width, 1, width // 2)[0]


def snapkv(prefix: ExactPrefix, budget: float = 0.25) -> SimulatedCache:
    """SnapKV (arXiv 2404.14469): what the last 32 queries look at, pooled over 7 tokens, and these 32."""
    count = max(round(budget * len(prefix.ids)), WINDOW)
    return _evicted(prefix, {layer: _top(_pooled(w), count, WINDOW) for layer, w in prefix.window.items()})


def pyramid_budgets(total: int, layers: int, beta: float = 20.0) -> list[int]:
    """Tokens a layer, falling in equal steps from the first to the last, total / beta; their mean is `total`."""
    least = total / beta
    most = 2 * total - least
    return [round(most - (most - least) * i / max(layers - 1, 1)) for i in range(layers)]


def pyramidkv(prefix: ExactPrefix, budget: float = 0.25) -> SimulatedCache:
    """PyramidKV (arXiv 2406.02069): SnapKV's choice, with budgets that fall from layer to layer."""
    n = len(prefix.ids)
    budgets = pyramid_budgets(max(round(budget * n), WINDOW), len(prefix.kv))
    keep = {
        layer: _top(_pooled(prefix.window[layer]), min(max(count, WINDOW), n), WINDOW)
        for layer, count in zip(prefix.kv, budgets, strict=True)
    }
    return _evicted(prefix, keep)


def streaming(prefix: ExactPrefix, budget: float = 0.25) -> SimulatedCache:
    """StreamingLLM (arXiv 2309.17453): the first 4 tokens and the newest."""
    n = len(prefix.ids)
    count = max(round(budget * n), SINK + 1)
    keep = {
        layer: _top(torch.zeros(k.shape[0], n), count, count - SINK, SINK)
        for layer, (k, _) in prefix.kv.items()
    }
    return _evicted(prefix, keep)


SIMULATED: Mapping[str, Callable[..., SimulatedCache]] = {
    "kivi": kivi, "rotated": rotated, "zipvl": zipvl, "zipvl-evict": zipvl_evict, "h2o": h2o, "snapkv": snapkv,
    "pyramidkv": pyramidkv, "streaming": streaming, "per-token": per_token,
}  # fmt: skip


def simulate(method: str, prefix: ExactPrefix, options: Mapping[str, Any]) -> SimulatedCache:
    """A method by name, with the options its plan records."""
    return SIMULATED[method](prefix, **options)
