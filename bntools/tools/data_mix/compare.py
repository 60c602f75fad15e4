"""The published methods beside the joint law: each one's error on mixtures left out, its choice and its prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import BnError
from bntools.tools.data_mix.choose.decide import Answer, Question, baselines, sign
from bntools.tools.data_mix.choose.simplex import candidates
from bntools.tools.data_mix.laws import bimix, exponential, projektor, trees
from bntools.tools.data_mix.laws.fitted import Fitted, folds
from bntools.tools.data_mix.laws.projektor import Distance
from bntools.tools.data_mix.runs.runs import Runs
from bntools.tools.data_mix.settings import METHODS

Floats = NDArray[np.floating[Any]]


class Method(Protocol):
    """A fitted law of mixtures."""

    def predict(self, weights: Floats, n: float) -> Floats: ...


Fit = Callable[[Runs, "Distance | None"], Method]

PUBLISHED: dict[str, Fit] = {
    "projektor": projektor.fit,
    "exp": lambda runs, distance: exponential.fit(runs),
    "regmix": lambda runs, distance: trees.fit(runs),
    "bimix": lambda runs, distance: bimix.fit(runs),
}


def chosen(model: Method, question: Question, runs: Runs) -> Floats:
    """The mixture a method would buy: by its own search on the whole simplex, else the best candidate within limits."""
    limits, m, n = question.limits, len(runs.sources), question.n
    free = n is not None and limits.budget is None and (limits.upper >= 1).all() and runs.kind != "score"
    if free and isinstance(model, projektor.Projektor):
        return model.descend(n, m, question.seed)
    if free and isinstance(model, trees.RegMix):
        return model.choose(n, m, question.seed)
    pool = limits.applied(candidates(m, question.seed), n)
    sizes = limits.sizes(pool, n)
    if n is None:
        value = np.array([model.predict(p[None], size)[0] for p, size in zip(pool, sizes, strict=True)])
    else:
        value = model.predict(pool, n)
    return pool[int(np.argmin(sign(runs.kind) * value))]


def published(name: str, fitted: Fitted, question: Question, distance: Distance | None) -> tuple[Answer, float]:
    """A published method's mixture, and its own prediction there; the draws beside it are those of the joint law."""
    runs, limits = fitted.runs, question.limits
    model = PUBLISHED[name](runs, distance)
    best = chosen(model, question, runs)
    from bntools.tools.data_mix.choose.decide import best_pilot

    pilot, rivals = limits.applied(best_pilot(runs)[None], question.n)[0], baselines(fitted, question)
    points = np.stack([best, pilot, *rivals.values()])
    n = limits.sizes(points, question.n)
    answer = Answer(best, pilot, rivals, n, fitted.sample(points, n, question.seed), "mixture")
    return answer, float(model.predict(best[None], float(n[0]))[0])


def methods_of(
    fitted: Fitted, question: Question, answer: Answer, *, names: tuple[str, ...], distance: Distance | None,
    left: Floats,
) -> dict[str, Any]:  # fmt: skip
    """Of each method its mean absolute error at the largest size, mixtures left out, its mixture and prediction."""
    runs = fitted.runs
    largest = runs.n == runs.n.max()
    joint_view = fitted.expected(answer.best[None], answer.n[:1])
    result: dict[str, Any] = {
        "joint": {
            "leave_out_mae": float(np.abs(left - runs.lower)[largest].mean()),
            "mixture": _named(runs, answer.best), "predicted": _user(runs, joint_view[0]),
            "predicted_by_joint": _user(runs, joint_view[0]),
        }
    }  # fmt: skip
    for name in names if len(names) > 1 else METHODS:
        if name == "joint":
            continue
        try:
            other, value = published(name, fitted, question, distance)
            result[name] = {
                "leave_out_mae": _left_out(PUBLISHED[name], runs, distance),
                "mixture": _named(runs, other.best), "predicted": _user(runs, value),
                "predicted_by_joint": _user(runs, fitted.expected(other.best[None], other.n[:1])[0]),
            }  # fmt: skip
        except BnError as error:
            result[name] = {"error": error.what}
    return result


def _left_out(fit: Fit, runs: Runs, distance: Distance | None) -> float | None:
    """Mean absolute error at the largest size, the mixtures predicted left out; None where too few are left to fit."""
    miss = []
    for fold in folds(runs):
        held = runs.at(fold & (runs.n == runs.n.max()))
        if not len(held):
            continue
        try:
            model = fit(runs.at(~fold), distance)
        except BnError:
            return None
        miss.append(np.abs(model.predict(held.weights, float(runs.n.max())) - held.lower))
    return float(np.concatenate(miss).mean())


def _named(runs: Runs, p: Floats) -> dict[str, float]:
    return {name: float(w) for name, w in zip(runs.sources, p, strict=True)}


def _user(runs: Runs, value: float) -> float:
    return float(1 - value if runs.kind == "accuracy" else value)
