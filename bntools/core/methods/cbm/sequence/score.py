"""A bottleneck over sequences on labelled ones: accuracy, beside those that cannot tell the order of windows."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.methods.cbm import metrics
from bntools.core.methods.cbm.bottleneck import Floats
from bntools.core.methods.cbm.score import check_encoder, indices_of
from bntools.core.methods.cbm.sequence.inputs import Sequences
from bntools.core.methods.cbm.sequence.model import SequenceModel, predict


def score(model: SequenceModel, data: Sequences, seed: int = 0) -> dict[str, Any]:
    """The report of `eval` on a bottleneck over sequences.

    shuffled: the same model on windows in random order; uniform_attention: every window looks at all alike;
    baselines: linear maps of what is averaged over windows.
    """
    check_encoder(model.facts, model.vectors.shape[1], data.rows)
    y, scores = indices_of(model.labels, data.whole), model.scores(data.rows.x)
    mixed = scores[shuffled(data.starts, seed)]
    pooled = means(scores, data.starts)
    hit = predict(model, scores, data.starts).argmax(1) == y
    return {
        "kind": "motif-eval", "sequences": len(data), "rows": len(data.rows.x), "longest": int(data.lengths.max()),
        "classes": len(model.classes), "concepts": len(model.names), "method": "motif",
        "accuracy": metrics.mean_error(hit),
        "shuffled": metrics.accuracy(predict(model, mixed, data.starts), y),
        "uniform_attention": metrics.accuracy(predict(model, scores, data.starts, uniform=True), y),
        "baselines": {name: metrics.accuracy(pooled @ w.T + b, y) for name, (w, b) in model.baselines.items()},
    }  # fmt: skip


def means(scores: Floats, starts: NDArray[np.int64]) -> Floats:
    """Mean over each sequence's windows, [N, K]."""
    return np.add.reduceat(scores, starts[:-1], axis=0) / np.diff(starts)[:, None].astype(np.float32)


def shuffled(starts: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Indices that put each sequence's windows in random order."""
    draw = np.random.default_rng([seed, 41])
    return np.concatenate([a + draw.permutation(b - a) for a, b in itertools.pairwise(starts)])
