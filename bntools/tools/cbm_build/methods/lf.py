"""Label-free CBM (arXiv 2304.06129): concepts of one encoder's names, as directions in another encoder's embedding.

A teacher embeds the same rows and the concepts' names in one space; P [N, K] are its cosines. Direction k of the data's
own embedding maximises the cosine of q_k^3 with p_k^3 over rows, both centred (cubes weigh the rows that show the
concept). Concepts that reach less than a similarity on held-out rows are dropped. Ours starts from the ridge regression
of P, the maximum without cubes, and takes accelerated steps from there; what is kept is the step with the best
similarity on held-out rows, of each concept by itself. The head is the exactly sparse one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input
from bntools.core.methods.cbm.bottleneck import Floats, unit
from bntools.core.progress import Progress
from bntools.tools.cbm_build.banks.bank import Bank
from bntools.tools.cbm_build.methods import labo
from bntools.tools.cbm_build.settings import Settings
from bntools.tools.cbm_build.training import Head, Training

SIMILARITY = 0.45
"""Of a concept on held-out rows, below which it is dropped (the published value)."""
_RIDGE, _STEPS, _RATE = 1e-3, 30, 0.3


def fit(training: Training, settings: Settings, progress: Progress) -> Head:
    return labo.fit(training, settings, progress)


def concept_layer(
    embeddings: Floats, teacher: Floats, bank: Bank, rows: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> tuple[Bank, list[dict[str, Any]]]:
    """The concepts whose score can be read from the embedding, and the similarity of each on held-out rows.

    teacher [N, d']: the same rows in the concepts' space. rows: to fit on and held out. Raises BnError (exit 3) where
    no concept reaches the similarity.
    """
    part, held = rows
    held = held if len(held) else part
    target = unit(teacher) @ unit(bank.vectors).T
    center = embeddings[part].mean(0)
    x, x_held = embeddings[part] - center, embeddings[held] - center
    vectors, similarity = project(x, target[part], (x_held, target[held]))
    good = similarity > SIMILARITY
    if not good.any():
        best = f"{similarity.max():.2f}"
        raise bad_input(f"no concept is read from the data with a similarity above {SIMILARITY}; the best has {best}",
                        "other concepts, or --teacher of the same rows in the same order")  # fmt: skip
    quality = [
        {"concept": name, "similarity": float(value), "dropped": not ok}
        for name, value, ok in zip(bank.names, similarity, good, strict=True)
    ]
    bank = replace(bank, vectors=vectors, offsets=-(vectors @ center)).at(good)
    return bank, quality


def project(x: Floats, target: Floats, held: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """Directions [K, d] and their similarity [K] on held rows: cosines of cubes of centred scores."""
    covariance = (x.T @ x).astype(np.float64) / len(x)
    ridge = _RIDGE * max(float(np.trace(covariance)) / len(covariance), 1e-30)
    inverse = np.linalg.inv(covariance + ridge * np.eye(len(covariance))).astype(np.float32)
    wanted = _cubes(target)[1]
    weight = _scaled((target - target.mean(0)).T @ x @ inverse, x)
    best, score = weight, similarity(held[0] @ weight.T, held[1])
    ahead = weight
    for step in range(_STEPS):
        slope = _slope(x @ ahead.T, wanted).T @ x @ inverse
        size = np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-12)
        moved = ahead + _RATE / (1 + step / 10) * slope / size * np.linalg.norm(ahead, axis=1, keepdims=True)
        ahead = _scaled(moved, x)
        now = similarity(held[0] @ ahead.T, held[1])
        best = np.where((now > score)[:, None], ahead, best)
        score = np.maximum(now, score)
    return best.astype(np.float32), score


def similarity(scores: Floats, target: Floats) -> Floats:
    """Cosine of the cubes of centred columns of two matrices [N, K]."""
    return (_cubes(scores)[1] * _cubes(target)[1]).sum(0)


def _cubes(scores: Floats) -> tuple[Floats, Floats]:
    """Centred columns, and their cubes at length 1."""
    centred = scores - scores.mean(0)
    centred = centred / np.maximum(centred.std(0), 1e-12)
    cubes = centred**3
    return centred, cubes / np.maximum(np.linalg.norm(cubes, axis=0), 1e-12)


def _slope(scores: Floats, wanted: Floats) -> Floats:
    """Gradient of the similarity by the scores [N, K], up to a factor of each concept."""
    centred, cubes = _cubes(scores)
    slope = centred**2 * (wanted - cubes * (cubes * wanted).sum(0))
    return slope - slope.mean(0)


def _scaled(weight: Floats, x: Floats) -> Floats:
    """Directions whose scores have deviation 1."""
    return weight / np.maximum((x @ weight.T).std(0), 1e-12)[:, None]
