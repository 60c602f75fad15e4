"""Explanations of a bottleneck over sequences: what decides, when, and which windows a concept looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bntools.core.errors import usage
from bntools.core.methods.cbm.bottleneck import Floats, topmost
from bntools.core.methods.cbm.sequence.inputs import Sequences
from bntools.core.methods.cbm.sequence.model import Form, SequenceModel, forward, maps

_CLASSES, _MAPS = 5, 3


@dataclass(frozen=True)
class Decision:
    """One sequence's logits [C], and of the best class: share of each window [T], contributions [T, K], and `spread`.

    logit = bias + sum of contributions + spread, where shares r_t = softmax_t(tau logit_t) weigh windows and spread =
    (entropy(r) - log T) / tau: 0 where all windows say the same, below 0 where few decide.
    """

    logits: Floats
    shares: Floats
    parts: Floats
    spread: float
    concepts: Floats


def decide(model: SequenceModel, scores: Floats) -> Decision:
    """What each concept in each window of scores [T, K] adds to the logit of the best class."""
    form = Form(model.paper, model.temperature)
    with torch.no_grad():
        every = torch.ones(1, len(scores), dtype=torch.bool)
        whole = forward(model.parameters, torch.from_numpy(scores)[None], every, form)
    logits, windows, concepts = (part[0].numpy().astype(np.float64) for part in whole)
    best = int(logits.argmax())
    shares = np.exp(model.temperature * (windows[:, best] - windows[:, best].max()))
    shares /= shares.sum()
    parts = shares[:, None] * concepts * model.parameters["weight"][best].numpy()
    entropy = -float((shares * np.log(np.maximum(shares, 1e-300))).sum())
    spread = (entropy - (0 if model.paper else np.log(len(scores)))) / model.temperature
    return Decision(logits, shares, parts, spread, concepts)


def local(
    model: SequenceModel, data: Sequences, row: int, top: int, changes: dict[str, float]
) -> dict[str, Any]:
    """One sequence: contributions of concepts, which windows decide, and where the strongest concepts look.

    changes: {`concept` or `concept@window`: standardised score to put there}. Raises BnError (exit 2) for a sequence or
    window that is not there.
    """
    scores = model.scores(data.rows.x[_span(data, row)])
    if changes:
        return _change(model, scores, row, changes)
    decision = decide(model, scores)
    best, total = int(decision.logits.argmax()), decision.parts.sum(0)
    order = topmost(np.abs(total), top)
    probability = _softmax(decision.logits)
    labels = data.whole.labels
    truth = np.flatnonzero(model.labels == labels[row]) if labels is not None else []
    looks = maps(model, scores, [int(k) for k in order[:_MAPS]])
    return {
        "kind": "motif-explanation", "sequence": int(data.docs[row]), "windows": len(scores),
        "predicted": model.classes[best], "truth": model.classes[truth[0]] if len(truth) else None,
        "probability": float(probability[best]), "logit": float(decision.logits[best]),
        "bias": float(model.parameters["bias"][best]), "spread": decision.spread,
        "contributions": [{"concept": model.names[k], "contribution": float(total[k]),
                           "window": int(np.abs(decision.parts[:, k]).argmax())} for k in order if total[k] != 0],
        "rest": float(total.sum() - total[order].sum()),
        "time": [{"window": t, "share": float(share), "concept": model.names[int(np.abs(decision.parts[t]).argmax())]}
                 for t, share in enumerate(decision.shares)],
        "attention": [{"concept": model.names[k], "looked_at": [round(float(v), 4) for v in look.mean(0)],
                       "map": [[round(float(v), 4) for v in line] for line in look]}
                      for k, look in zip(order[:_MAPS], looks, strict=True)],
        "rivals": [{"class": model.classes[c], "probability": float(probability[c])}
                   for c in topmost(probability, _CLASSES + 1) if c != best][:_CLASSES],
    }  # fmt: skip


def _change(model: SequenceModel, scores: Floats, row: int, changes: dict[str, float]) -> dict[str, Any]:
    moved = scores.copy()
    for text, value in changes.items():
        name, at, window = text.rpartition("@")
        if text in model.names:
            moved[:, model.names.index(text)] = value
        elif at and window.isdecimal() and int(window) < len(scores):
            moved[int(window), model.names.index(name)] = value
        else:
            raise usage(
                f"--set {text}: the sequence has windows 0 to {len(scores) - 1}",
                f"--set '{name}@0={value:g}'",
            )
    before, after = (_softmax(decide(model, values).logits) for values in (scores, moved))
    return {
        "kind": "cbm-change", "row": row, "set": changes, "predicted": model.classes[int(before.argmax())],
        "changed_to": model.classes[int(after.argmax())],
        "classes": [{"class": model.classes[c], "before": float(before[c]), "after": float(after[c])}
                    for c in topmost(after, _CLASSES)],
    }  # fmt: skip


def overall(model: SequenceModel, data: Sequences, top: int) -> dict[str, Any]:
    """All sequences: of each class, positive contributions of concepts, and where in a sequence they lie (0 to 1)."""
    classes, count = len(model.classes), len(model.names)
    totals, places, rows = np.zeros((classes, count)), np.zeros((classes, count)), np.zeros(classes, np.int64)
    for row in range(len(data)):
        decision = decide(model, model.scores(data.rows.x[_span(data, row)]))
        best, parts = int(decision.logits.argmax()), np.maximum(decision.parts, 0)
        when = np.arange(len(parts)) / max(len(parts) - 1, 1)
        totals[best] += parts.sum(0)
        places[best] += when @ parts
        rows[best] += 1
    return {
        "kind": "motif-global", "sequences": len(data),
        "classes": [
            {"class": name, "rows": int(rows[c]), "concepts": [
                {"concept": model.names[k], "share": float(totals[c, k] / max(totals[c].sum(), 1e-30)),
                 "place": float(places[c, k] / totals[c, k]), "weight": float(model.parameters["weight"][c, k])}
                for k in topmost(totals[c], top) if totals[c, k] > 0]}
            for c, name in enumerate(model.classes)
        ],
    }  # fmt: skip


def _span(data: Sequences, row: int) -> slice:
    if not 0 <= row < len(data):
        raise usage(f"no sequence {row} in {data.rows.label}", f"sequences are 0 to {len(data) - 1}")
    return slice(int(data.starts[row]), int(data.starts[row + 1]))


def _softmax(logits: Floats) -> Floats:
    result = np.exp(logits - logits.max())
    return result / result.sum()
