"""Which concepts of a large bank a bottleneck gets: LaBo's discriminative and covering ones, or random ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bntools.core.methods.cbm.bottleneck import Floats, unit

Mask = NDArray[np.bool_]
Indices = NDArray[np.int64]


def discriminability(centroids: Floats, vectors: Floats, temperature: float = 0.5) -> NDArray[np.float64]:
    """Log C minus the entropy of p(class | concept) in nats, [K]; 0: a concept that fits every class alike.

    p is a softmax over classes of the concept's mean similarity with each, standardised over classes: a conditional
    entropy also where cosines are negative, which LaBo's quotient of similarities is not (2211.11158, eq. 3).
    """
    similarity = vectors.astype(np.float64) @ centroids.T.astype(np.float64)
    similarity -= similarity.mean(1, keepdims=True)
    logits = similarity / (temperature * max(float(similarity.std()), 1e-12))
    logits -= logits.max(1, keepdims=True)
    p = np.exp(logits)
    p /= p.sum(1, keepdims=True)
    return np.log(p.shape[1]) + (p * np.log(np.maximum(p, 1e-300))).sum(1)


def greedy(value: NDArray[np.float64], similarity: NDArray[np.float64], count: int, weight: float) -> Indices:
    """Maximise sum of value + weight x facility location of `similarity` by greedy steps, first of equals.

    The facility location is sum_i max_{s in S} similarity[i, s], empty: 0. Monotone and submodular for nonnegative
    values and similarities, so the result is within 1 - 1/e of the best set of `count`.
    """
    covered = np.zeros(len(value))
    chosen: list[int] = []
    free = np.ones(len(value), bool)
    for _ in range(min(count, len(value))):
        gain = value + weight * np.maximum(similarity - covered[:, None], 0).sum(0)
        best = int(np.where(free, gain, -np.inf).argmax())
        chosen.append(best)
        free[best] = False
        covered = np.maximum(covered, similarity[:, best])
    return np.array(chosen, np.int64)


def labo(vectors: Floats, centroids: Floats, owner: Mask, per_class: int, coverage: float = 1.0) -> Indices:
    """`per_class` concepts a class from the pool it owns, then the union, in the bank's order.

    owner [K, C]: a concept may belong to several classes, and is chosen by any of them. A class that owns none
    chooses among all. Values and similarities are brought to one scale in each pool: no weight of 1e7 is needed.
    """
    value, direction = discriminability(centroids, vectors), unit(vectors)
    taken = np.zeros(len(vectors), bool)
    for c in range(owner.shape[1]):
        pool = np.flatnonzero(owner[:, c]) if owner[:, c].any() else np.arange(len(vectors))
        cosine = np.maximum(direction[pool] @ direction[pool].T, 0).astype(np.float64)
        spread = max(float(value[pool].max() - value[pool].min()), 1e-12)
        scaled = (value[pool] - value[pool].min()) / spread
        taken[pool[greedy(scaled, cosine, per_class, coverage / len(pool) * per_class)]] = True
    return np.flatnonzero(taken)


def random(count: int, total: int, seed: int) -> Indices:
    """`count` of `total`, in order."""
    return np.sort(np.random.default_rng([seed, 17]).permutation(total)[:count])


def duplicates(vectors: Floats, limit: float) -> Mask:
    """Concepts whose cosine with an earlier one that stays is above the limit."""
    direction, drop = unit(vectors), np.zeros(len(vectors), bool)
    for k in range(1, len(vectors)):
        earlier = direction[:k][~drop[:k]]
        drop[k] = bool(len(earlier)) and float((earlier @ direction[k]).max()) > limit
    return drop


def names_a_class(names: list[str], classes: list[str]) -> Mask:
    """Concepts that contain the name of a class as whole words: they give the answer away."""
    words = [f" {' '.join(c.lower().replace('_', ' ').split())} " for c in classes]
    padded = [f" {' '.join(n.lower().replace('_', ' ').split())} " for n in names]
    return np.array([any(w in n for w in words if w.strip()) for n in padded], bool)
