"""One fit of a method at a budget, its prior tuned on validation rows, and the full tables that others start from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bntools.core.methods.embedding.stored import StoredTables
from bntools.kernels.embedding.head import Head
from bntools.tools.embed_fit.methods import plain
from bntools.tools.embed_fit.methods.builders import BUILDERS
from bntools.tools.embed_fit.problem import Problem
from bntools.tools.embed_fit.settings import Settings
from bntools.tools.embed_fit.training import LAMBDAS, Trained, Training, predict, train, tune

Floats = NDArray[np.float32]


class Fitted(NamedTuple):
    """A method at a budget on one split: outputs of the test rows, numbers that are kept, and how it was fitted."""

    method: str
    budget: float
    stored: StoredTables | None
    output: Floats
    loss: float
    numbers: float
    facts: dict[str, Any]


@dataclass
class Bench:
    """A problem, settings, and the full tables that were trained on it, by width.

    priors: where tuning starts, by what is tuned; frozen: weights that are not tuned.
    """

    problem: Problem
    settings: Settings
    full: dict[int, tuple[Trained, plain.Form, list[dict[str, float]]]] = field(default_factory=dict)
    priors: dict[str, float] = field(default_factory=dict)
    frozen: dict[str, float] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)

    def training(self) -> Training:
        s = self.settings
        return Training(s.rate, s.batch, s.patience, s.epochs, self.problem.task, self.problem.seed)

    def fit(self, build: Any, key: str) -> tuple[Any, Any, list[dict[str, float]]]:
        """Tune the prior of what build() makes: the fit, its form, what was tried. key: where tuning starts from."""
        forms: dict[float, Any] = {}

        def one(weight: float) -> Trained:
            forms[weight] = build()
            lookup = forms[weight].lookup
            head = Head(self.settings.model, lookup.widths, self.problem.seed)
            return train(lookup, head, (self.problem.train, self.problem.valid), weight, self.training())

        fixed = self.frozen.get(key, self.settings.lambda_)
        lambdas = LAMBDAS if fixed is None else (fixed,)
        trained, tried = tune(one, self.priors.get(key, 300.0), lambdas)
        self.priors[key] = trained.prior
        return trained, forms[trained.prior], tried

    def full_table(self, d: int) -> tuple[Trained, plain.Form, list[dict[str, float]]]:
        """The full table of width d."""
        if d not in self.full:
            seed = self.problem.seed
            self.full[d] = self.fit(lambda: plain.row_table(self.problem, d, seed), f"full{d}")
        return self.full[d]

    def store(self, form: plain.Form, head: Head, method: str, budget: float) -> StoredTables:
        """The artifact of a trained form."""
        arrays, facts, more = form.store()
        return assemble(self, method, budget, (arrays, facts, more), head)

    def output(self, trained: Trained) -> Floats:
        return predict(trained.lookup, trained.head, self.problem.test.ids)


def assemble(
    bench: Bench, method: str, budget: float, made: Any, head: Head, vocab: list[Any] | None = None
) -> StoredTables:
    """Facts, arrays, vocabularies and head of an artifact."""
    arrays, forms, more = made
    problem, settings = bench.problem, bench.settings
    fields = [
        {"name": f.name, "values": len(f.values), **form}
        for f, form in zip(problem.fields, forms, strict=True)
    ]
    hashed = ("hashed", "chunks", "robe", "perceptron")
    facts = {
        "method": method, "budget": budget, "model": settings.model, "task": problem.task,
        "at_least": settings.at_least, "fields": fields, **more,
    }  # fmt: skip
    values = vocab or [f.values for f in problem.fields]
    kept = [None if form["form"] in hashed else v for v, form in zip(values, forms, strict=True)]
    parameters = {name: p.detach().clone() for name, p in head.parameters.items()}
    return StoredTables(facts, arrays, kept, parameters)


def fit_plain(bench: Bench, method: str, budget: float) -> Fitted | None:
    """A table that trains in one go; None where the budget cannot hold it."""
    problem, settings = bench.problem, bench.settings
    if BUILDERS[method](problem, budget, settings, problem.seed) is None:
        return None
    if method == "full":
        trained, form, tried = bench.full_table(int(settings.dim * budget + 1e-9))
    else:
        trained, form, tried = bench.fit(
            lambda: BUILDERS[method](problem, budget, settings, problem.seed), method
        )
    stored = bench.store(form, trained.head, method, budget)
    if method == "full":
        stored.arrays |= statistics(bench, trained)
    return Fitted(method, budget, stored, bench.output(trained), trained.loss, trained.lookup.stored,
                  told(trained, tried))  # fmt: skip


def told(trained: Trained, tried: list[dict[str, float]]) -> dict[str, Any]:
    """What a report says of the fit."""
    return {"prior": {"lambda": trained.prior, "tried": tried}, "epoch": trained.epoch}


def metrics_of_fields(bench: Bench, trained: Trained) -> list[NDArray[np.float64]]:
    """For each field the matrix [d, d] of what an error of its vector costs: the mean over training rows of
    p (1 - p) g g^T (binary) or g g^T, g the slope of the output by the vector.
    """
    lookup, head, rows = trained.lookup, trained.head, bench.problem.train
    result = [np.zeros((w, w)) for w in lookup.widths]
    for start in range(0, len(rows.y), 8192):
        out = head.forward(lookup.forward(rows.ids[start : start + 8192]))
        g = head.backward(torch.ones_like(out)).numpy()
        p = torch.sigmoid(out).numpy() if bench.problem.task == "binary" else None
        weight = np.ones(len(g), np.float32) if p is None else p * (1 - p)
        first = 0
        for t, w in enumerate(lookup.widths):
            part = g[:, first : first + w]
            result[t] += (part * weight[:, None]).T @ part
            first += w
    return [G / len(rows.y) for G in result]


def statistics(bench: Bench, trained: Trained) -> dict[str, Any]:
    """What compressing without data needs: how often a value occurs, and the metric of its field."""
    out: dict[str, Any] = {}
    for f, G in zip(bench.problem.fields, metrics_of_fields(bench, trained), strict=True):
        out[f"counts.{f.name}"] = f.counts.astype(np.uint32)
        out[f"metric.{f.name}"] = G.astype(np.float32)
    return out
