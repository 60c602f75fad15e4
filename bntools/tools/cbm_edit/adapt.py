"""Test-time adaptation without training: mask concepts that mislead in a new domain, amplify those too weak there.

After the abstract of TF-TTI, whose text and code are not public; the rules below are ours. For a labelled row i of the
new domain with class y and strongest rival r, concept k moves the margin by m_ik = (W_yk - W_rk) s_ik. Confounders have
a large mean max(0, -m_ik) over rows that are lost or won by less than `CLOSE`; weak discriminators a large mean of
max(0, W_yk - W_rk) max(0, mu_yk - s_ik), with mu the class's mean score in training. How many of each, and the factor,
are chosen by leaving one row out; no row of the new domain is judged by an edit it took part in.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.methods.cbm.bottleneck import Bottleneck, Floats, topmost
from bntools.core.methods.cbm.inputs import Embeddings
from bntools.core.methods.cbm.score import check, class_indices

COUNTS = (0, 1, 2, 4, 8)
FACTORS = (1.25, 1.5, 2.0, 3.0)
CLOSE = 1.0
"""Margins below this many nats count as nearly lost."""


class Choice(NamedTuple):
    """So many concepts masked, so many multiplied by a factor."""

    mask: int
    amplify: int
    factor: float


def adapt(
    model: Bottleneck, few: Embeddings, guard: Embeddings | None, epsilon: float
) -> tuple[Bottleneck, dict[str, Any]]:
    """The adapted bottleneck and its report. An edit that costs more than `epsilon` of guard accuracy is not made.

    few: labelled rows of the new domain. guard: labelled rows of the old one.
    """
    check(model, few)
    y, scores = class_indices(model, few), model.concepts(few.x)
    offset = model.logits(few.x) - scores @ model.weight.T
    confounding, lacking = evidence(model, scores, offset, y)
    before = float(((scores @ model.weight.T + offset).argmax(1) == y).mean())
    kept = None if guard is None else _accuracy(model, guard)
    ranked = sorted(
        (
            (left_out(model, scores, offset, y, (confounding, lacking), choice), choice)
            for choice in _choices()
        ),
        key=lambda pair: (-pair[0], pair[1].mask + pair[1].amplify, pair[1].factor),
    )
    best, refused = (before, Choice(0, 0, 1.0)), 0
    edited, guarded = model, kept
    for score, choice in ranked:
        if score <= before:
            break
        candidate = apply(model, confounding.sum(0), lacking.sum(0), choice)
        after = None if guard is None else _accuracy(candidate, guard)
        if after is not None and kept is not None and after < kept - epsilon:
            refused += 1
            continue
        best, edited, guarded = (score, choice), candidate, after
        break
    return edited, _report(model, edited, best, {
        "rows": len(y), "accuracy_before": before, "guard_before": kept, "guard_after": guarded, "refused": refused,
        "accuracy_after": _accuracy(edited, few),
    })  # fmt: skip


def _choices() -> list[Choice]:
    pairs = [(mask, amplify) for mask in COUNTS for amplify in COUNTS if mask or amplify]
    return [Choice(a, b, f) for a, b in pairs for f in (FACTORS if b else (1.0,))]


def evidence(
    model: Bottleneck, scores: Floats, offset: Floats, y: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Each row's part in how confounding and how weak each concept is, both [N, K]."""
    logits, rows = scores @ model.weight.T + offset, np.arange(len(y))
    others = logits.copy()
    others[rows, y] = -np.inf
    rival = others.argmax(1)
    difference = model.weight[y] - model.weight[rival]
    close = (logits[rows, y] - logits[rows, rival] < CLOSE)[:, None]
    confounding = np.maximum(-difference * scores, 0) * close
    lacking = np.maximum(difference, 0) * np.maximum(model.class_mean[y] - scores, 0)
    return confounding, lacking


def left_out(
    model: Bottleneck,
    scores: Floats,
    offset: Floats,
    y: NDArray[np.int64],
    parts: tuple[Floats, Floats],
    choice: Choice,
) -> float:
    """Share of rows that are right after the edit that the other rows ask for."""
    gain = np.ones_like(scores)
    for part, count, factor in ((parts[0], choice.mask, 0.0), (parts[1], choice.amplify, choice.factor)):
        if count:
            rest = part.sum(0) - part
            order = np.argsort(-rest, 1, kind="stable")[:, :count]
            live = np.take_along_axis(rest, order, 1) > 0
            now = np.take_along_axis(gain, order, 1)
            np.put_along_axis(gain, order, np.where(live, now * np.float32(factor), now), 1)
    return float((((scores * gain) @ model.weight.T + offset).argmax(1) == y).mean())


def apply(model: Bottleneck, confounding: Floats, lacking: Floats, choice: Choice) -> Bottleneck:
    """The model with the strongest confounders off and the weakest discriminators amplified."""
    scale = model.scale.copy()
    for values, count, factor in ((confounding, choice.mask, 0.0), (lacking, choice.amplify, choice.factor)):
        for k in topmost(values, count):
            if values[k] > 0:
                scale[k] *= np.float32(factor)
    return replace(model, scale=scale)


def _accuracy(model: Bottleneck, data: Embeddings) -> float:
    check(model, data)
    return float((model.predict(data.x) == class_indices(model, data)).mean())


def _report(
    before: Bottleneck, after: Bottleneck, best: tuple[float, Choice], facts: dict[str, Any]
) -> dict[str, Any]:
    changed = np.flatnonzero(before.scale != after.scale)
    changes = [
        {"edit": "mask" if after.scale[k] == 0 else "amplify", "concept": before.names[k],
         "from": float(before.scale[k]), "to": float(after.scale[k])}
        for k in changed
    ]  # fmt: skip
    return {**facts, "left_one_out": best[0], "masked": best[1].mask, "amplified": best[1].amplify,
            "factor": best[1].factor, "changes": changes}  # fmt: skip
