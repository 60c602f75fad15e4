"""A concept bottleneck: embedding to concept scores to classes, and the baselines it is held against."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
BLOCK = 1 << 14
"""Rows scored at once."""
ACTIVATIONS = ("linear", "relu", "sigmoid", "threshold", "topk")


@dataclass(frozen=True)
class Bottleneck:
    """Concept k scores embedding e as s_k = act(v_k'e + b_k); logits = W ((s - mean) / std * scale) + bias [+ R e].

    vectors V [K, d], offsets b [K], mean, std [K] of the training scores (std 0: constant, the concept is off),
    scale [K] of the edits, weight W [C, K], bias [C], residual (R [C, d], [C]) or None. normalize: e is divided by
    its length first. heads: the other sparsities fitted with it {NEC: (W, bias)}. baselines: {name: (A [C, d],
    a [C])}, models without a bottleneck, or with random concepts, as maps of the embedding.
    class_mean [C, K]: standardised scores of each class's training rows; counts [C]: how many those are.
    levels [K, 2]: raw score of an absent and of a present concept, NaN where no annotation said which rows have it.
    theta [K]: scores of activation `threshold` below it are 0; None for others.
    """

    vectors: Floats
    offsets: Floats
    mean: Floats
    std: Floats
    weight: Floats
    bias: Floats
    names: list[str]
    classes: list[str]
    labels: NDArray[np.int64]
    class_mean: Floats
    counts: NDArray[np.int64]
    scale: Floats
    levels: Floats
    activation: str = "linear"
    normalize: bool = False
    residual: tuple[Floats, Floats] | None = None
    heads: dict[str, tuple[Floats, Floats]] = field(default_factory=dict)
    baselines: dict[str, tuple[Floats, Floats]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    theta: Floats | None = None

    @property
    def nec(self) -> float:
        """Number of effective concepts: nonzero weights a class, of concepts that are not switched off."""
        return float((self.weight[:, self.live] != 0).sum()) / len(self.weight)

    @property
    def live(self) -> NDArray[np.bool_]:
        return (self.std > 0) & (self.scale != 0)

    def prepare(self, embeddings: Floats) -> Floats:
        """Embeddings as the concepts see them: of length 1 where the bottleneck asks for it."""
        if not self.normalize:
            return embeddings
        return unit(embeddings)

    def raw(self, embeddings: Floats) -> Floats:
        """Concept scores [N, K] before standardising."""
        return activate(self.prepare(embeddings) @ self.vectors.T + self.offsets, self.activation, self.theta)

    def concepts(self, embeddings: Floats) -> Floats:
        """Standardised concept scores [N, K], with the scale of edits."""
        return self.standardise(self.raw(embeddings))

    def standardise(self, raw: Floats) -> Floats:
        """Raw scores [N, K] to standardised ones; a concept that is off is 0."""
        gain = np.where(self.std > 0, self.scale / np.where(self.std > 0, self.std, 1), 0).astype(np.float32)
        return (raw - self.mean) * gain

    def logits(self, embeddings: Floats) -> Floats:
        """Class scores [N, C]."""
        parts = []
        for start in range(0, len(embeddings), BLOCK):
            block = embeddings[start : start + BLOCK]
            parts.append(self.concepts(block) @ self.weight.T + self.bias)
            if self.residual is not None:
                parts[-1] += self.prepare(block) @ self.residual[0].T + self.residual[1]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.weight)), np.float32)

    def predict(self, embeddings: Floats) -> NDArray[np.int64]:
        """Index of the class of each row, the first of equals."""
        return self.logits(embeddings).argmax(1)

    def at(self, nec: str) -> Bottleneck:
        """The same concepts with the head of another sparsity."""
        weight, bias = self.heads[nec]
        return replace(self, weight=weight, bias=bias)


def activate(scores: Floats, name: str, theta: Floats | None = None) -> Floats:
    """`linear`, `relu` or `sigmoid` of scores [N, K]; `topk:n`, the n largest of a row where positive; `threshold`,
    those above theta and 0. Others are 0.
    """
    if name.startswith("topk:"):
        count = int(name.removeprefix("topk:"))
        if count < scores.shape[1]:
            least = -np.partition(-scores, count - 1, axis=1)[:, count - 1 : count]
            scores = np.where(scores >= least, scores, np.float32(0))
        return np.maximum(scores, np.float32(0))
    if name == "threshold":
        return np.where(scores > np.maximum(0 if theta is None else theta, 0), scores, np.float32(0))
    if name == "relu":
        return np.maximum(scores, np.float32(0))
    if name == "sigmoid":
        return (1 / (1 + np.exp(-np.clip(scores, -60, 60)))).astype(np.float32)
    return scores


def unit(x: Floats) -> Floats:
    """Rows of length 1; a row of zeros stays."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(length > 0, length, 1)


def topmost(values: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Indices of the `count` largest, largest first, ties to the earlier one."""
    return np.argsort(-values, kind="stable")[:count]
