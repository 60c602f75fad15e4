"""Accuracy against the number of concepts that somebody corrects, for several ways to choose which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input
from bntools.core.methods.cbm.bottleneck import Bottleneck, Floats, topmost
from bntools.core.methods.cbm.inputs import Embeddings, Truth
from bntools.core.methods.cbm.metrics import mean_error
from bntools.core.methods.cbm.score import check, class_indices, standard_levels

POLICIES = ("random", "uncertainty", "margin", "mixed", "expected")
_MARGIN_STEPS = 3
"""`mixed` asks by margin so many times, then by uncertainty."""


class Questions:
    """One round after another of asking, for every row, about the concept a policy wants to know most.

    scores [N, K] standardised, present [N, k] the answers, concepts [k] their indices.
    What is known is not asked again.
    """

    def __init__(self, model: Bottleneck, scores: Floats, concepts: NDArray[np.int64], present: NDArray[Any]):
        self.model, self.concepts = model, concepts
        self.scores = scores.copy()
        self.levels = standard_levels(model, concepts)
        self.answers = np.where(present > 0, self.levels[:, 1], self.levels[:, 0]).astype(np.float32)
        self.open = present >= 0
        span = np.maximum(np.abs(self.levels[:, 1] - self.levels[:, 0]), 1e-12)
        self.span = np.where(self.levels[:, 1] >= self.levels[:, 0], span, -span)
        self.head = model.weight[:, concepts]

    @property
    def logits(self) -> Floats:
        return self.scores @ self.model.weight.T + self.model.bias

    @property
    def belief(self) -> Floats:
        """Where each score stands between absent (0) and present (1)."""
        return np.clip((self.scores[:, self.concepts] - self.levels[:, 0]) / self.span, 0, 1)

    def ask(self, value: Floats) -> None:
        """Answer, in each row, the open question of the largest value, the first of equals."""
        choice = np.where(self.open, value, -np.inf).argmax(1)
        rows = np.flatnonzero(self.open.any(1))
        column = choice[rows]
        self.scores[rows, self.concepts[column]] = self.answers[rows, column]
        self.open[rows, column] = False

    def uncertainty(self) -> Floats:
        p = self.belief
        return p * (1 - p)

    def margin(self) -> Floats:
        """How far an answer can move the margin between the two best classes: |W_1 - W_2| span sqrt(p(1 - p))."""
        order = np.argsort(-self.logits, 1, kind="stable")[:, :2]
        between = np.abs(self.head[order[:, 0]] - self.head[order[:, 1]]) * np.abs(self.span)
        return between * np.sqrt(self.uncertainty() + 1e-9)

    def expected(self) -> Floats:
        """Probability of the best class that an answer leaves on average: sum_v p(v) max_y p(y | answer v)."""
        logits, belief = self.logits, self.belief
        value = np.empty(belief.shape, np.float32)
        for j, k in enumerate(self.concepts):
            gain = 0.0
            for level, share in ((0, 1 - belief[:, j]), (1, belief[:, j])):
                moved = logits + (self.levels[j, level] - self.scores[:, k])[:, None] * self.head[:, j]
                gain = gain + share / np.exp(moved - moved.max(1, keepdims=True)).sum(1)
            value[:, j] = gain
        return value


def intervene(
    model: Bottleneck, data: Embeddings, truth: Truth, *, policy: str, budgets: Sequence[int], seed: int = 0
) -> dict[str, Any]:
    """Accuracy after each number of corrected concepts, of one policy and of random questions.

    Raises BnError (exit 3) where no annotated concept has levels: the bottleneck was built without --truth.
    """
    check(model, data)
    y, scores = class_indices(model, data), model.concepts(data.x)
    concepts, present = truth.of(model.names)
    good = np.isfinite(model.levels[concepts]).all(1) & model.live[concepts]
    concepts, present = concepts[good], present[:, good]
    if not len(concepts):
        raise bad_input(
            "no annotated concept of the bottleneck has a score to be set to",
            "build it with --truth FILE, or --bank cav",
        )
    curves = {
        name: _curve(Questions(model, scores, concepts, present), y, name, budgets, seed)
        for name in dict.fromkeys(["random", policy])
    }
    start = curves[policy][0]["accuracy"]["value"]
    for curve in curves.values():
        for point in curve:
            point["gain"] = point["accuracy"]["value"] - start
    everything = Questions(model, scores, concepts, present)
    for _ in range(len(concepts)):
        everything.ask(everything.open.astype(np.float32))
    return {
        "kind": "cbm-intervention", "rows": len(y), "concepts": len(concepts), "policy": policy,
        "curve": curves[policy], "random": curves["random"],
        "all_concepts": mean_error(everything.logits.argmax(1) == y),
    }  # fmt: skip


def _curve(
    questions: Questions, y: NDArray[np.int64], policy: str, budgets: Sequence[int], seed: int
) -> list[dict[str, Any]]:
    draw = np.random.default_rng([seed, 31])
    budgets = sorted({0, *(b for b in budgets if b <= len(questions.concepts))})
    points = []
    for asked in range(max(budgets) + 1):
        if asked in budgets:
            points.append({"corrected": asked, "accuracy": mean_error(questions.logits.argmax(1) == y)})
        if policy == "random":
            questions.ask(draw.random(questions.open.shape, np.float32))
        elif policy == "expected":
            questions.ask(questions.expected())
        elif policy == "margin" or (policy == "mixed" and asked < _MARGIN_STEPS):
            questions.ask(questions.margin())
        else:
            questions.ask(questions.uncertainty())
    return points


def apply_changes(model: Bottleneck, data: Embeddings, row: int, changes: dict[str, float]) -> dict[str, Any]:
    """One row with concepts set to standardised scores: the classes' probabilities before and after."""
    scores = model.concepts(data.x[row : row + 1])[0]
    logits = model.logits(data.x[row : row + 1])[0]
    after = logits.astype(np.float64).copy()
    for name, value in changes.items():
        k = model.names.index(name)
        after += model.weight[:, k] * (value - scores[k])
    before, later = (_softmax(v.astype(np.float64)) for v in (logits, after))
    result = [
        {"class": model.classes[c], "before": float(before[c]), "after": float(later[c])}
        for c in topmost(later, 5)
    ]
    return {
        "kind": "cbm-change", "row": row, "set": changes, "predicted": model.classes[int(logits.argmax())],
        "changed_to": model.classes[int(after.argmax())], "classes": result,
    }  # fmt: skip


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    result = np.exp(logits - logits.max())
    return result / result.sum()
