"""How well axes of a code stand for known factors: MIG, DCI, SAP, modularity; from codes [n, k] and factors [n, F]."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BINS = 20
"""Bins of equal counts an axis is cut into, as usual for MIG."""
ROUNDS, SHRINK = 200, 0.1
"""Boosted stumps behind DCI's importances, and the share of each that is taken."""
_CATEGORIES = 3
"""Levels up to which a factor is taken for categories without an order."""


def scores(codes: NDArray[Any], factors: NDArray[Any]) -> dict[str, float]:
    """MIG, DCI (disentanglement, completeness, informativeness), SAP and modularity, each from 0 to 1, 1 the best."""
    levels = np.stack([np.unique(column, return_inverse=True)[1] for column in factors.T], 1).astype(np.int64)
    binned = np.stack([_equal_bins(column) for column in np.asarray(codes, np.float64).T], 1)
    information, entropies = mutual_information(binned, levels)
    importance, explained = importances(binned, levels)
    return {
        "mig": mutual_information_gap(information, entropies),
        "dci_disentanglement": _one_sided(importance),
        "dci_completeness": _one_sided(importance.T),
        "dci_informativeness": float(explained.mean()),
        "sap": separated_predictability(np.asarray(codes, np.float64), levels),
        "modularity": modularity(information),
    }


def mutual_information(binned: Ints, levels: Ints) -> tuple[Floats, Floats]:
    """I(axis; factor) [k, F] and H(factor) [F] in nats, of counts."""
    k, f = binned.shape[1], levels.shape[1]
    information = np.zeros((k, f))
    entropies = np.array([_entropy(np.bincount(column)) for column in levels.T])
    for i in range(k):
        own = _entropy(np.bincount(binned[:, i]))
        for j in range(f):
            joint = np.bincount(binned[:, i] * (levels[:, j].max() + 1) + levels[:, j])
            information[i, j] = max(own + entropies[j] - _entropy(joint), 0.0)
    return information, entropies


def mutual_information_gap(information: Floats, entropies: Floats) -> float:
    """Mean over factors of the gap between the two axes that know most, over the factor's entropy (Chen 2018)."""
    ordered = np.sort(np.vstack([np.zeros_like(information[:1]), information]), 0)
    return float(((ordered[-1] - ordered[-2]) / np.maximum(entropies, 1e-12)).mean())


def modularity(information: Floats) -> float:
    """One less the squared information an axis has on factors other than its own, averaged (Ridgeway, Mozer 2018)."""
    if information.shape[1] < 2:
        return 1.0
    best = information.max(1)
    live = best > 1e-3
    if not live.any():
        return 0.0
    others = (information[live] ** 2).sum(1) - best[live] ** 2
    return float((1 - others / (best[live] ** 2 * (information.shape[1] - 1))).mean())


def separated_predictability(codes: Floats, levels: Ints) -> float:
    """Mean gap between the two best axes in the share of a factor's variance that a line explains (Kumar 2018).

    Deviation: factors without an order count by their indicators, not by a classifier.
    """
    spread = codes - codes.mean(0)
    spread /= np.maximum(np.sqrt((spread**2).sum(0)), 1e-12)
    gaps = []
    for column in levels.T:
        target = _targets(column)
        share = ((spread.T @ target) ** 2).sum(1) / max(float((target**2).sum()), 1e-12)
        ordered = np.sort(np.append(share, 0.0))
        gaps.append(ordered[-1] - ordered[-2])
    return float(np.mean(gaps))


def importances(binned: Ints, levels: Ints) -> tuple[Floats, Floats]:
    """Importance of each axis for each factor [k, F], and the share of each factor's variance explained [F].

    From boosted stumps on the bins, by half of the rows; what is explained is of the other half (Eastwood 2018, whose
    forests these stumps stand for).
    """
    n = len(binned)
    order = np.random.default_rng(0).permutation(n)
    train, test = order[: n // 2], order[n // 2 :]
    importance, explained = np.zeros((binned.shape[1], levels.shape[1])), np.zeros(levels.shape[1])
    for j, column in enumerate(levels.T):
        total = error = 0.0
        for target in _targets(column).T:
            gains, residual = _boost(binned, target, train, test)
            importance[:, j] += gains
            total += float(((target[test] - target[train].mean()) ** 2).sum())
            error += float((residual**2).sum())
        explained[j] = max(0.0, 1 - error / max(total, 1e-12))
    return importance, explained


def _boost(binned: Ints, target: Floats, train: Ints, test: Ints) -> tuple[Floats, Floats]:
    """Gains by axis of stumps fitted one after the other to what is left, and what is left of the test rows."""
    base = target[train].mean()
    left, other = target[train] - base, target[test] - base
    seen, unseen = binned[train], binned[test]
    counts = np.stack([np.bincount(column, minlength=BINS) for column in seen.T]).cumsum(1)[:, :-1]
    above = len(train) - counts
    gains = np.zeros(binned.shape[1])
    for _ in range(ROUNDS):
        sums = np.stack([np.bincount(column, left, BINS) for column in seen.T]).cumsum(1)[:, :-1]
        rest = left.sum() - sums
        gain = sums**2 / np.maximum(counts, 1) + rest**2 / np.maximum(above, 1)
        axis, at = np.unravel_index(int(gain.argmax()), gain.shape)
        low, high = (
            SHRINK * sums[axis, at] / max(counts[axis, at], 1),
            SHRINK * rest[axis, at] / max(above[axis, at], 1),
        )
        gains[axis] += gain[axis, at]
        left = left - np.where(seen[:, axis] <= at, low, high)
        other = other - np.where(unseen[:, axis] <= at, low, high)
    return gains, other


def _one_sided(importance: Floats) -> float:
    """One less the entropy of each row's shares, rows weighted by their importance."""
    total = importance.sum(1)
    if importance.shape[1] < 2 or total.sum() <= 0:
        return 1.0 if importance.shape[1] < 2 else 0.0
    shares = importance / np.maximum(total[:, None], 1e-12)
    entropy = -(shares * np.log(np.maximum(shares, 1e-12))).sum(1) / np.log(importance.shape[1])
    return float(((1 - entropy) * total).sum() / total.sum())


def _targets(column: Ints) -> Floats:
    """A centred column [n, 1] of an ordered factor, centred indicators [n, levels] of one without an order."""
    count = int(column.max()) + 1
    values = np.eye(count)[column] if count <= _CATEGORIES else column[:, None].astype(np.float64)
    return values - values.mean(0)


def _equal_bins(column: Floats) -> Ints:
    edges = np.quantile(column, np.linspace(0, 1, BINS + 1)[1:-1])
    return np.searchsorted(edges, column, "right").astype(np.int64)


def _entropy(counts: Ints) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())
