"""iHAS (arXiv 2309.07967): gates chosen by the row, clustered to groups, one model a group; and with one table."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bntools.kernels.embedding.head import Head
from bntools.tools.embed_fit.lookups import Ids, Lookup
from bntools.tools.embed_fit.methods import plain
from bntools.tools.embed_fit.methods.fitting import Bench, Fitted
from bntools.tools.embed_fit.training import Rows, Trained, loss_of, predict, slope, train

_HIDDEN, _EPOCHS, _TEMPERATURE = 32, 2, 0.5
_L1, _L2 = 0.05, 0.05  # weights of mean(p) and mean(p (1 - p))
_ROUNDS = 20


class Gate(nn.Module):
    """p = sigmoid(MLP(x0)) in [0, 1]^D from vectors that get no gradient of it."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.net = nn.Sequential(nn.Linear(width, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, width))
        nn.init.constant_(self.net[2].bias, 2.0)  # begin open

    def forward(self, x0: Tensor) -> Tensor:
        return self.net(x0.detach())


class Gated(Lookup):
    """A lookup whose vectors are multiplied by a fixed 0/1 mask [D]: one group's model."""

    def __init__(self, inner: Lookup, kept: Tensor) -> None:
        self.inner, self.kept, self.widths, self.stored = inner, kept, inner.widths, inner.stored
        self.flat, self.mask = inner.flat, None

    def forward(self, ids: Ids) -> Tensor:
        return self.inner.forward(ids) * self.kept

    def backward(self, g: Tensor) -> None:
        self.inner.backward(g * self.kept)

    def step(self, decay: float, rate: float, step: int) -> None:
        self.inner.step(decay, rate, step)


class Groups(NamedTuple):
    """The search table, its gate, centroids of the masks [C, D] and each group's mask [C, D]."""

    lookup: Lookup
    gate: Gate
    centroids: Tensor
    masks: Tensor

    def of(self, ids: Ids) -> NDArray[np.int64]:
        """The group of each row: gate, then the nearest centroid."""
        parts = []
        for start in range(0, len(ids), 8192):
            z = masks(self.lookup, self.gate, ids[start : start + 8192])
            parts.append(torch.cdist(z, self.centroids).argmin(1).numpy())
        return np.concatenate(parts)


def masks(lookup: Lookup, gate: Gate, ids: Ids) -> Tensor:
    """Deterministic masks z = [p > 1/2] of rows."""
    with torch.no_grad():
        return (gate(lookup.forward(ids)) > 0).float()


def search(bench: Bench, prior: float) -> tuple[Lookup, Head, Gate]:
    """Two epochs: binary-concrete z, hard forward and soft backward, loss + l1 mean(p) + l2 mean(p (1 - p))."""
    problem, settings = bench.problem, bench.settings
    lookup = plain.row_table(problem, settings.dim, problem.seed).lookup
    head, gate = Head(settings.model, lookup.widths, problem.seed), Gate(sum(lookup.widths), problem.seed)
    optimiser = torch.optim.Adam(gate.parameters(), settings.rate)
    generator = torch.Generator().manual_seed(problem.seed)
    from bntools.tools.embed_fit.training import HeadState

    state, rng, step = HeadState(head), np.random.default_rng(problem.seed), 0
    for _ in range(_EPOCHS):
        order = rng.permutation(len(problem.train.y))
        for start in range(0, len(order), settings.batch):
            step += 1
            rows = order[start : start + settings.batch]
            x0 = lookup.forward(problem.train.ids[rows])
            logits = gate(x0)
            p = torch.sigmoid(logits)
            noise = torch.rand(p.shape, generator=generator).clamp(1e-6, 1 - 1e-6)
            soft = torch.sigmoid((logits + noise.log() - (-noise).log1p()) / _TEMPERATURE)
            z = (soft > 0.5).float() + soft - soft.detach()
            g = head.backward(slope(head.forward((x0 * z).detach()), problem.train.y[rows], problem.task))
            penalty = _L1 * p.mean() + _L2 * (p * (1 - p)).mean()
            optimiser.zero_grad()
            ((z * (g * x0).detach()).sum() + penalty).backward()
            optimiser.step()
            lookup.backward((g * z).detach())
            state.step(settings.rate, step)
            lookup.step(prior / len(problem.train.y), settings.rate, step)
    return lookup, head, gate


def cluster(z: Tensor, groups: int, seed: int) -> Tensor:
    """k-means of masks: centroids [C, D]."""
    distinct = torch.unique(z, dim=0)
    rng = np.random.default_rng(seed)
    groups = min(groups, len(distinct))
    centres = distinct[rng.choice(len(distinct), groups, replace=False)].clone()
    for _ in range(_ROUNDS):
        near = torch.cdist(z, centres).argmin(1)
        moved = torch.stack(
            [z[near == c].mean(0) if (near == c).any() else centres[c] for c in range(groups)]
        )
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


def group_masks(bench: Bench, centroids: Tensor, budget: float) -> Tensor:
    """Each group's majority mask; where a budget asks for less, the dimensions most often open, in all groups alike."""
    problem, d = bench.problem, bench.settings.dim
    cost = torch.tensor([float(len(f.values)) for f in problem.fields]).repeat_interleave(d)
    chosen = (centroids > 0.5).float()
    limit = plain.full_size(problem, bench.settings) * budget
    if float((chosen * cost).sum()) <= limit:
        return chosen
    flat, total = torch.zeros(chosen.numel()), 0.0
    for i in torch.argsort(
        (centroids * chosen).reshape(-1) / cost.repeat(len(chosen)).sqrt(), descending=True
    ).tolist():
        price = float(cost[i % len(cost)])
        if total + price <= limit:
            flat[i], total = 1.0, total + price
    return flat.view_as(chosen)


def fit_ihas(bench: Bench, budget: float) -> Fitted | None:
    """Search, groups, one model a group trained on its rows; counted are all tables, the search's, too, and the gate."""
    problem, settings = bench.problem, bench.settings
    prior = bench.full_table(settings.dim)[0].prior if settings.lambda_ is None else settings.lambda_
    if "ihas" not in bench.kept:
        lookup, head, gate = search(bench, prior)
        z = masks(lookup, gate, problem.train.ids[: 1 << 16])
        bench.kept["ihas"] = (lookup, head, gate, cluster(z, settings.groups, problem.seed))
    lookup, head, gate, centroids = bench.kept["ihas"]
    groups = Groups(lookup, gate, centroids, group_masks(bench, centroids, budget))
    where = [groups.of(rows.ids) for rows in (problem.train, problem.valid, problem.test)]
    output, valid = np.zeros(len(problem.test.y), np.float32), np.zeros(len(problem.valid.y), np.float32)
    for c in range(len(centroids)):
        model = _group(bench, groups, c, (where, prior))
        for each, rows, out in ((where[1], problem.valid, valid), (where[2], problem.test, output)):
            inside = each == c
            if inside.any():
                out[inside] = predict(model.lookup, model.head, np.ascontiguousarray(rows.ids[inside]))
    loss = loss_of(problem.valid.y, valid, problem.task)
    tables = float((groups.masks * _sizes(bench)).sum())
    fixed = sum(p.numel() for p in gate.parameters()) + centroids.numel() + lookup.stored
    numbers = fixed + (0 if settings.share_table else tables)
    facts: dict[str, Any] = {
        "prior": {"lambda": prior, "tried": []}, "groups": len(centroids), "tables_only": tables,
        "rows": [float((where[2] == c).mean()) for c in range(len(centroids))], "shared": settings.share_table,
    }  # fmt: skip
    return Fitted("ihas", budget, None, output, loss, numbers, facts)


def _sizes(bench: Bench) -> Tensor:
    sizes = torch.tensor([float(len(f.values)) for f in bench.problem.fields])
    return sizes.repeat_interleave(bench.settings.dim)


def _group(bench: Bench, groups: Groups, c: int, how: tuple[list[NDArray[np.int64]], float]) -> Trained:
    """The model of one group: a fresh table, or with a shared one a head of its own on the search's table."""
    problem, settings = bench.problem, bench.settings
    where, prior = how
    parts = []
    for each, rows in zip(where[:2], (problem.train, problem.valid), strict=True):
        inside = np.flatnonzero(each == c)
        inside = inside if len(inside) else np.arange(min(64, len(rows.y)))
        parts.append(Rows(np.ascontiguousarray(rows.ids[inside]), rows.y[inside]))
    if settings.share_table:
        frozen = Gated(groups.lookup, groups.masks[c])
        frozen.step = lambda decay, rate, step: frozen.inner.restart()  # type: ignore[method-assign]
        inner: Lookup = frozen
    else:
        inner = Gated(plain.row_table(problem, settings.dim, problem.seed + c).lookup, groups.masks[c])
    head = Head(settings.model, inner.widths, problem.seed)
    return train(inner, head, (parts[0], parts[1]), prior, bench.training())
