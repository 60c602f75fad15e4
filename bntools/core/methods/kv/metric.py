"""The metric in which queries see keys and the model sees values, from a calibration text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bntools.core.methods.kv import watch

FLOOR = 0.03
"""Of the mean eigenvalue, added to every one: the inverse is then well conditioned."""


@dataclass
class CacheMoments:
    """Sums over a calibration text of one layer: of q q^T, and of k, v with their squares. Arrays are [heads, d, d]."""

    qq: Tensor
    k: Tensor
    kk: Tensor
    v: Tensor
    vv: Tensor
    queries: int = 0
    tokens: int = 0

    @classmethod
    def empty(cls, heads: int, width: int) -> CacheMoments:
        square, line = (heads, width, width), (heads, width)
        return cls(
            *(torch.zeros(shape, dtype=torch.float64) for shape in (square, line, square, line, square))
        )

    def add(self, q: Tensor, k: Tensor, v: Tensor, scaling: float) -> None:
        """q [B, heads, n, d]; k, v [B, key heads, n, d] of the same tokens."""
        batch, heads, n, d = q.shape
        groups = k.shape[1]
        rows = q.double().mul(scaling).reshape(batch, groups, heads // groups, n, d).transpose(0, 1)
        rows = rows.reshape(groups, -1, d)
        self.qq += rows.transpose(1, 2) @ rows
        self.queries += rows.shape[1]
        for x, total, square in ((k, self.k, self.kk), (v, self.v, self.vv)):
            flat = x.double().transpose(0, 1).reshape(groups, -1, d)
            total += flat.sum(1)
            square += flat.transpose(1, 2) @ flat
        self.tokens += k.shape[0] * k.shape[2]


@dataclass
class CacheRecorder:
    """Gathers the moments of every layer during forward passes without a cache, the first `sink` tokens left out."""

    sink: int
    layers: dict[int, CacheMoments] = field(default_factory=dict)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scaling: float) -> None:
        if layer not in self.layers:
            self.layers[layer] = CacheMoments.empty(k.shape[1], k.shape[-1])
        last = q.shape[2]
        cut = slice(self.sink, last)
        self.layers[layer].add(q[:, :, cut], k[:, :, -last:][:, :, cut], v[:, :, -last:][:, :, cut], scaling)


@dataclass(frozen=True)
class QueryMetric:
    """y = (x - mean) forward^T of one layer, keys and values: [2, heads, d] and [2, heads, d, d], and back.

    |dy|^2 of a key is the expected squared error of a logit, of a value that of the layer's output in units of its
    mean square a coordinate. Adding one vector to all keys of a head moves no softmax, so the mean costs nothing.
    """

    mean: Tensor
    forward: Tensor
    inverse: Tensor

    @classmethod
    def of(cls, moments: CacheMoments, projection: Tensor | None) -> QueryMetric:
        """projection: W_o as [model width, heads * d] of all query heads; None: values are as they come."""
        keys, mean_k = _covariance(moments.k, moments.kk, moments.tokens)
        values, mean_v = _covariance(moments.v, moments.vv, moments.tokens)
        seen = moments.qq / max(moments.queries, 1)
        heads, d = mean_k.shape
        if projection is None:
            out = torch.eye(d, dtype=torch.float64).expand(heads, d, d).clone()
        else:
            blocks = projection.double().reshape(projection.shape[0], heads, -1, d)
            out = torch.einsum("ohgd,ohge->hde", blocks, blocks)
        power = torch.einsum("hde,hed->", _floored(out), values) / (heads * d)
        pairs = [_axes(_floored(seen), keys), _axes(_floored(out) / power.clamp_min(1e-12), values)]
        return cls.stored(torch.stack([mean_k, mean_v]), torch.stack(pairs))

    @classmethod
    def stored(cls, mean: Tensor, forward: Tensor) -> QueryMetric:
        """As an artifact has it: float16, from which the inverse is taken in double precision."""
        mean, forward = mean.to(torch.float16), forward.to(torch.float16)
        inverse = torch.linalg.inv(forward.double())
        return cls(mean.float(), forward.float(), inverse.float())

    def to(self, which: int, x: Tensor) -> Tensor:
        """Keys (0) or values (1) [heads, n, d] in the metric."""
        return (x.float() - self.mean[which][:, None]) @ self.forward[which].transpose(1, 2)

    def back(self, which: int, y: Tensor) -> Tensor:
        return y @ self.inverse[which].transpose(1, 2) + self.mean[which][:, None]


def _covariance(total: Tensor, square: Tensor, count: int) -> tuple[Tensor, Tensor]:
    mean = total / max(count, 1)
    return square / max(count, 1) - mean[:, :, None] * mean[:, None], mean


def _floored(metric: Tensor) -> Tensor:
    d = metric.shape[-1]
    scale = metric.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-9)
    return metric + FLOOR * scale[:, None, None] * torch.eye(d, dtype=metric.dtype)


def _axes(metric: Tensor, covariance: Tensor) -> Tensor:
    """U^T G^(1/2) of each head: coordinates without correlation, the largest variance first."""
    values, vectors = torch.linalg.eigh(metric)
    root = vectors * values.clamp_min(1e-12).sqrt()[:, None] @ vectors.transpose(1, 2)
    _, axes = torch.linalg.eigh(root @ covariance @ root)
    return axes.flip(-1).transpose(1, 2) @ root


def projection_of(module: Any, heads: int, width: int) -> Tensor | None:
    """W_o of an attention module as [model width, heads * d]; None where its shape is another."""
    projection = watch.output_projection(module)
    if projection is None:
        return None
    weight = projection.weight.detach()
    if type(projection).__name__ == "Conv1D":
        weight = weight.T
    return weight if weight.ndim == 2 and weight.shape[1] % (heads * width) == 0 else None
