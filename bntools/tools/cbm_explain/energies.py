"""Explanations of an energy-based bottleneck: conditional probabilities, and what each energy says of a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bntools.core.errors import bad_input, usage
from bntools.core.methods.cbm.bottleneck import topmost
from bntools.core.methods.cbm.energy.energies import EnergyModel, sigmoid, softmax
from bntools.core.methods.cbm.energy.inference import infer, marginals
from bntools.core.methods.cbm.energy.queries import conditionals
from bntools.core.methods.cbm.inputs import Embeddings, Truth
from bntools.core.methods.cbm.metrics import mean_error
from bntools.core.methods.cbm.score import indices_of

_CLASSES = 5


def local(model: EnergyModel, data: Embeddings, row: int, top: int) -> dict[str, Any]:
    """One row: p(y | x), what rows with classes alone say of y, and p(c_k | x), p(c_k | y, x) of the class it is given.

    Concepts are ordered by how far the class moves them. Raises BnError (exit 2) for a row that is not there.
    """
    x = _row(data, row)
    posterior, prepared = infer(model, x), model.prepare(x)
    alone, factor = softmax(model.class_logits(prepared))[0], sigmoid(model.concept_odds(prepared))[0]
    classes, concepts = posterior.classes[0], posterior.concepts[0]
    best = int(classes.argmax())
    of_class = posterior.given_class[0, best]
    order = topmost(np.abs(of_class - 0.5) * 1e-6 + np.abs(of_class - factor), top)
    truth = np.flatnonzero(model.labels == data.labels[row]) if data.labels is not None else []
    return {
        "kind": "ecbm-explanation", "row": row, "name": data.names[row] if data.names else None,
        "predicted": model.classes[best], "truth": model.classes[truth[0]] if len(truth) else None,
        "probability": float(classes[best]), "steps": int(posterior.steps[0]),
        "classes": [{"class": model.classes[c], "probability": float(classes[c]), "without_concepts": float(alone[c])}
                    for c in topmost(classes, _CLASSES)],
        "concepts": [{"concept": model.names[k], "probability": float(concepts[k]), "without_classes": float(factor[k]),
                      "given_class": float(of_class[k])} for k in order],
    }  # fmt: skip


def change(
    model: EnergyModel, data: Embeddings, row: int, known: dict[str, float], top: int
) -> dict[str, Any]:
    """p(c_-k, y | x, c_k): one row before and after some of its concepts are known, present (1) or absent (0)."""
    evidence = np.full((1, len(model.names)), -1, np.int8)
    for name, value in known.items():
        if value not in (0, 1):
            raise usage(
                f"--set {name}={value:g}: a concept of energies is present or absent", f"--set '{name}=1'"
            )
        evidence[0, model.names.index(name)] = int(value)
    x = _row(data, row)
    before, after = marginals(model, x), marginals(model, x, evidence)
    moved = (after.concepts - before.concepts)[0] * (evidence[0] < 0)
    return {
        "kind": "ecbm-change", "row": row, "set": known, "predicted": model.classes[int(before.classes.argmax())],
        "changed_to": model.classes[int(after.classes.argmax())],
        "classes": [{"class": model.classes[c], "before": float(p), "after": float(q)}
                    for c, p, q in _listed(before.classes[0], after.classes[0], topmost(after.classes[0], _CLASSES))],
        "concepts": [{"concept": model.names[k], "before": float(p), "after": float(q)}
                     for k, p, q in _listed(before.concepts[0], after.concepts[0], topmost(np.abs(moved), top))
                     if moved[k] != 0],
    }  # fmt: skip


def _listed(before: Any, after: Any, order: Any) -> list[tuple[int, float, float]]:
    return [(int(k), before[k], after[k]) for k in order]


def overall(model: EnergyModel, data: Embeddings, top: int, concept: str | None = None) -> dict[str, Any]:
    """All rows: p(c_k | y) of each class, the concepts first that are likelier in it than in all rows.

    concept: the one that is present, for p(c_k | c_j) and p(c_k | c_j, y).
    """
    answers = conditionals(model, data.x, None if concept is None else model.names.index(concept))

    def listed(values: Any, base: Any) -> list[dict[str, Any]]:
        order = [k for k in topmost(values - base, top + 1) if model.names[k] != concept][:top]
        return [
            {"concept": model.names[k], "probability": float(values[k]), "in_all": float(base[k])}
            for k in order
        ]

    of_class = answers.of_class if answers.given_class is None else answers.given_class
    base = [answers.concepts] * len(model.classes) if answers.given_class is None else answers.of_class
    return {
        "kind": "ecbm-global", "rows": len(data.x), "given": concept,
        "classes": [{"class": name, "probability": float(answers.classes[c]), "concepts": listed(of_class[c], base[c])}
                    for c, name in enumerate(model.classes)],
        "concepts": None if answers.given is None else listed(answers.given, answers.concepts),
    }  # fmt: skip


def intervene(
    model: EnergyModel, data: Embeddings, truth: Truth, *, policy: str, budgets: Sequence[int], seed: int
) -> dict[str, Any]:
    """Accuracy of classes after each number of corrected concepts, of one policy and of random questions."""
    if policy not in ("random", "uncertainty"):
        raise usage(
            f"--policy {policy} looks at weights, which energies have none of", "--policy uncertainty"
        )
    mine, present = truth.of(model.names)
    if not len(mine):
        raise bad_input(
            "no annotated concept has the name of a concept of the bottleneck", "bntools info shows them"
        )
    y = indices_of(model.labels, data)
    answers = np.full((len(data.x), len(model.names)), -1, np.int8)
    answers[:, mine] = present
    curves = {
        name: _curve(
            model, data, (y, answers), name, sorted({0, *(b for b in budgets if b <= len(mine))}), seed
        )
        for name in dict.fromkeys(["random", policy])
    }
    for curve in curves.values():
        for point in curve:
            point["gain"] = point["accuracy"]["value"] - curve[0]["accuracy"]["value"]
    return {
        "kind": "cbm-intervention", "rows": len(y), "concepts": len(mine), "policy": policy, "curve": curves[policy],
        "random": curves["random"],
        "all_concepts": mean_error(marginals(model, data.x, answers).classes.argmax(1) == y),
    }  # fmt: skip


def _curve(
    model: EnergyModel, data: Embeddings, truth: tuple[Any, Any], policy: str, budgets: list[int], seed: int
) -> list[dict[str, Any]]:
    y, answers = truth
    draw, known, points = np.random.default_rng([seed, 31]), np.full(answers.shape, -1, np.int8), []
    for asked in range(max(budgets) + 1):
        posterior = marginals(model, data.x, known) if asked in budgets or policy != "random" else None
        if asked in budgets and posterior is not None:
            points.append({"corrected": asked, "accuracy": mean_error(posterior.classes.argmax(1) == y)})
        if policy == "random" or posterior is None:
            value = draw.random(answers.shape, np.float32)
        else:
            value = posterior.concepts * (1 - posterior.concepts)
        value = np.where((known < 0) & (answers >= 0), value, -1)
        choice, rows = value.argmax(1), np.flatnonzero((value >= 0).any(1))
        known[rows, choice[rows]] = answers[rows, choice[rows]]
    return points


def _row(data: Embeddings, row: int) -> Any:
    if not 0 <= row < len(data.x):
        raise usage(f"no row {row} in {data.label}", f"rows are 0 to {len(data.x) - 1}")
    return data.x[row : row + 1]
