"""Sparse dictionaries: what a training step costs beside the dense one, what pursuit gains, and queries in code space.

usage: sparse_code.py [ACTIVATIONS DICTIONARY]. Without arguments the rows are random; times do not depend on them.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch

from bntools.core.datasets.activations import open_activations
from bntools.core.methods.sparse_dictionary import Inference, read
from bntools.core.methods.sparse_scores import unexplained
from bntools.kernels.sparse import selection
from bntools.kernels.sparse.composite import relevance, relevance_reference
from bntools.kernels.sparse.training import SparseWeights

B, WIDTH, K, ROUNDS = 1024, 576, 32, 7


class Dense(torch.nn.Module):
    """The step of a dense top-k autoencoder in torch, as SAELens and dictionary_learning take it."""

    def __init__(self, m: int, d: int) -> None:
        super().__init__()
        D = torch.nn.functional.normalize(torch.randn(m, d), dim=1)
        self.D, self.E = torch.nn.Parameter(D), torch.nn.Parameter(D.clone())
        self.be, self.bd = torch.nn.Parameter(torch.zeros(m)), torch.nn.Parameter(torch.zeros(d))
        self.optimizer = torch.optim.Adam(self.parameters(), 1e-3)

    def step(self, x: torch.Tensor) -> None:
        scores = torch.relu((x - self.bd) @ self.E.T + self.be)
        values, latents = scores.topk(K, 1)
        codes = torch.zeros_like(scores).scatter(1, latents, values)
        loss = (codes @ self.D + self.bd - x).square().sum() / x.square().sum()
        self.optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():
            self.D.grad -= (self.D.grad * self.D).sum(1, keepdim=True) * self.D
            self.optimizer.step()
            self.D.div_(self.D.norm(dim=1, keepdim=True))


def sparse_step(weights: SparseWeights, X: np.ndarray) -> None:
    ends = np.array([len(weights.D)], np.int32)
    seen = X - weights.bd.value
    support = selection.full(*selection.top(weights.encoder(), seen, K))
    found = weights.residual(X, support, ends, 1 / float(np.einsum("nd,nd->", X, X)))
    slopes = np.where(support.values > 0, found.pulls, np.float32(0))
    weights.descend(seen, found, support, slopes, ends, rate=1e-3)


def seconds(*works) -> list[float]:
    """Median CPU seconds of each, run by turns."""
    times: list[list[float]] = [[] for _ in works]
    for round_ in range(ROUNDS + 1):
        for work, kept in zip(works, times, strict=True):
            start = time.process_time()
            work()
            if round_:
                kept.append(time.process_time() - start)
    return [float(np.median(kept)) for kept in times]


def steps() -> None:
    x = np.random.default_rng(0).standard_normal((B, WIDTH), np.float32)
    for m in (2304, 4608):
        dense = Dense(m, WIDTH)
        half, single = (SparseWeights(m, WIDTH, np.random.default_rng(0), half) for half in (True, False))
        t = torch.from_numpy(x)
        times = seconds(lambda: dense.step(t), lambda: sparse_step(single, x), lambda: sparse_step(half, x))  # noqa: B023
        rates = [B / s for s in times]
        print(f"training, m {m}: dense torch {rates[0]:,.0f} rows a CPU second, here {rates[1]:,.0f} "
              f"({rates[1] / rates[0]:.1f} times) in float32, {rates[2]:,.0f} ({rates[2] / rates[0]:.1f} times) with "
              f"scores in bfloat16")  # fmt: skip


def pursuit(acts: str, path: str) -> None:
    from bntools.core.artifact.reader import open_path

    dictionary = read(open_path(path))
    with open_activations(acts) as rows:
        x = rows.read(max(rows.rows - 10_000, 0), rows.rows)
    x = x[np.linalg.norm(x, axis=1) <= dictionary.facts["outliers"]["limit"]][:6000]

    def fvu(how: Inference) -> float:
        return unexplained(x, dictionary.decode(dictionary.encode(x, how)))["value"]

    k, m = dictionary.k, len(dictionary.D)
    base = fvu(Inference(0, k))
    print(f"FVU at L0 {k}, the encoder: {base:.3f}")
    for candidates in (48, 96, 192, 384):
        start = time.process_time()
        value = fvu(Inference(candidates, k))
        speed = len(x) / (time.process_time() - start)
        print(
            f"  pursuit of {candidates}: {value:.3f} ({value / base:.3f} of it), {speed:,.0f} rows a CPU second"
        )
    few = x[:400]
    start = time.process_time()
    whole = unexplained(few, dictionary.decode(dictionary.encode(few, Inference(m - 1, k))))["value"]
    speed = len(few) / (time.process_time() - start)
    own = unexplained(few, dictionary.decode(dictionary.encode(few, Inference(0, k))))["value"]
    print(f"  pursuit of all {m}: {whole / own:.3f} of it (400 rows), {speed:,.0f} rows a CPU second")
    for fewer in (16, 18, 20, 22, 24):
        print(f"  pursuit of 96, {fewer} latents: {fvu(Inference(96, fewer)):.3f}")


def queries() -> None:
    rng = np.random.default_rng(0)
    W = (rng.random((9216, 64)) * (rng.random((9216, 64)) < 0.3)).astype(np.float32) + np.float32(1e-3)
    for d in (512, 1536):
        C, q = rng.standard_normal((64, d)).astype(np.float32), rng.standard_normal((1, d)).astype(np.float32)
        gram, products = C @ C.T, C @ (q / np.linalg.norm(q)).T
        theirs, ours = seconds(lambda: relevance_reference(W, C, q), lambda: relevance(W, gram, products))  # noqa: B023
        apart = np.abs(relevance(W, gram, products) - relevance_reference(W, C, q)).max()
        print(
            f"query, D {d}, 64 codes: {theirs / ours:.1f} times faster than by the map, equal to {apart:.0e}"
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    steps()
    queries()
    if len(sys.argv) > 2:
        pursuit(*sys.argv[1:3])
