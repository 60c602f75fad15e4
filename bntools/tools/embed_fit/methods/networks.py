"""Tables that a small network stands for: a tensor train of cores, and a perceptron over many hashes of a value."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bntools.core.methods.embedding.stored import Arrays
from bntools.kernels.embedding.hashing import hash_features
from bntools.kernels.embedding.train import contract, factors, perceptron, row_factors
from bntools.tools.embed_fit.lookups import SCALE, Composed
from bntools.tools.embed_fit.methods.plain import WHOLE, Form, full_size
from bntools.tools.embed_fit.problem import Problem
from bntools.tools.embed_fit.settings import Settings

_MOST_RANK = 64
_HASHES = (
    1024,
    512,
    256,
    128,
    64,
)  # the paper's number first, fewer where the budget has no room for its layer
_NARROWEST = 8  # hidden units below which fewer hashes are taken


def tensor_train(problem: Problem, budget: float, settings: Settings, seed: int) -> Form | None:
    """Three cores a field of one rank (TT-Rec, arXiv 2101.11714); fields of few values are whole."""
    d, sizes = settings.dim, [n for n, _ in problem.sizes()]
    limit, widths = full_size(problem, settings) * budget, factors(d)
    parts = [None if n <= WHOLE else row_factors(n) for n in sizes]

    def shapes_at(r: int) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for t, (n, split) in enumerate(zip(sizes, parts, strict=True)):
            if split is None:
                shapes[f"E{t}"] = (n, d)
                continue
            ends = (1, r, r, 1)
            for j in range(3):
                shapes[f"G{t}.{j}"] = (split[j], ends[j], widths[j], ends[j + 1])
        return shapes

    fitting = [r for r in range(1, _MOST_RANK + 1) if _numbers(shapes_at(r)) <= limit]
    if not fitting:
        return None
    rank = fitting[-1]
    scale = 1 / (SCALE**2 * rank)  # fresh products are as large as a full table's fresh rows

    def compute(p: dict[str, Tensor], ids: Tensor) -> Tensor:
        out = []
        for t, n in enumerate(sizes):
            v = ids[:, t].clamp(max=n - 1)
            e = p[f"E{t}"][v] if parts[t] is None else scale * contract([p[f"G{t}.{j}"] for j in range(3)], v)
            out.append(e * (ids[:, t] < n)[:, None])
        return torch.cat(out, 1)

    lookup = Composed(shapes_at(rank), [d] * len(sizes), compute, seed=seed)

    def store() -> tuple[Arrays, list[dict[str, Any]], dict[str, Any]]:
        arrays, facts = {}, []
        for t, f in enumerate(problem.fields):
            if parts[t] is None:
                arrays[f"table.{f.name}"] = lookup.parameters[f"E{t}"].numpy().copy()
            else:
                for j in range(3):
                    core = lookup.parameters[f"G{t}.{j}"].numpy().copy()
                    arrays[f"core{j}.{f.name}"] = core if j else np.float32(scale) * core
            facts.append({"form": "rows" if parts[t] is None else "train", "width": d})
        return arrays, facts, {}

    return Form(lookup, store)


def deep_hash(problem: Problem, budget: float, settings: Settings, seed: int) -> Form | None:
    """One perceptron for all fields over hashes of a value in [-1, 1] (DHE, arXiv 2010.10784); no batch norm."""
    d, limit = settings.dim, full_size(problem, settings) * budget

    def shapes_at(k: int, h: int) -> dict[str, tuple[int, ...]]:
        return {"W0": (k, h), "b0": (h,), "W1": (h, h), "b1": (h,), "W2": (h, d)}

    chosen = None
    for k in _HASHES:
        h = max((h for h in range(1, 1025) if _numbers(shapes_at(k, h)) <= limit), default=0)
        if h >= _NARROWEST:
            chosen = (k, h)
            break
    if chosen is None:
        return None
    k, h = chosen
    codes = [
        torch.from_numpy(hash_features(words, k, problem.seed, t)) for t, words in enumerate(problem.digests)
    ]

    def compute(p: dict[str, Tensor], ids: Tensor) -> Tensor:
        layers = [p[name] for name in ("W0", "b0", "W1", "b1", "W2")]
        return torch.cat([perceptron(codes[t][ids[:, t]], layers) for t in range(len(codes))], 1)

    lookup = Composed(shapes_at(k, h), [d] * len(codes), compute, seed=seed)
    for name, fan in (("W0", k / 3), ("W1", h), ("W2", h)):
        lookup.parameters[name] *= 1 / (SCALE * np.sqrt(fan))
    lookup.parameters["W2"] *= SCALE
    for name in ("b0", "b1"):
        lookup.parameters[name].zero_()

    def store() -> tuple[Arrays, list[dict[str, Any]], dict[str, Any]]:
        arrays = {f"layer.{name}": p.numpy().copy() for name, p in lookup.parameters.items()}
        return arrays, [{"form": "perceptron", "width": d} for _ in codes], {"seed": problem.seed}

    return Form(lookup, store)


def _numbers(shapes: dict[str, tuple[int, ...]]) -> int:
    return sum(int(np.prod(shape)) for shape in shapes.values())
