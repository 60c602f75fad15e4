"""What training in a subspace costs: the transform, one step at several sizes, memory. CPU seconds of one thread.

usage: subspace.py [MODEL_DIRECTORY]    with a directory, also one step of that language model in all its parameters
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from bntools.core.datasets import networks
from bntools.core.model.open import open_model
from bntools.kernels.projections import projections
from bntools.kernels.projections.hadamard import fwht
from bntools.tools.intrinsic_dim.descend import Direct, Subspace

torch.set_num_threads(1)


def cpu(function: Callable[[], object], repeats: int = 5, times: int = 1) -> float:
    """Best CPU milliseconds of one call."""
    best = float("inf")
    for _ in range(repeats):
        began = time.process_time()
        for _ in range(times):
            function()
        best = min(best, (time.process_time() - began) / times)
    return 1e3 * best


def radix2(x: torch.Tensor) -> torch.Tensor:
    """The transform as the papers' programs have it: one pass over memory, and one copy, a stage."""
    h = 1
    while h < x.numel():
        pairs = x.view(-1, 2, h)
        x = torch.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], 1).view(-1)
        h *= 2
    return x


def transform() -> None:
    for power in (18, 24):
        x = np.random.default_rng(0).normal(size=1 << power).astype(np.float32)
        ours, theirs = cpu(lambda x=x: fwht(x), 3), cpu(lambda x=x: radix2(torch.from_numpy(x)), 2)
        print(
            f"Walsh-Hadamard of 2^{power}: {ours:.1f} ms, radix-2 stack {theirs:.0f} ms: {theirs / ours:.0f} times"
        )


def small_step() -> None:
    """MNIST's network in batches of 128, interleaved so that both see the same machine."""
    x, y = torch.randn(128, 784), torch.randint(0, 10, (128,))

    def make(kind: str | None) -> Callable[[], None]:
        module = networks.named("fc:200,200", (784,), 10)
        networks.initialize(module, 0)
        flat = networks.FlatParameters(module)
        mover = Direct(flat) if kind is None else Subspace(flat, projections.make(kind, flat.size, 750, 0))

        def step() -> None:
            nn.functional.cross_entropy(module(x), y).backward()
            mover.step(1e-3)

        return step

    kinds = [None, "uniform", "cyclic", "sparse", "fastfood", "fastfood-full"]
    steps = {kind: make(kind) for kind in kinds}
    best = dict.fromkeys(kinds, float("inf"))
    for _ in range(12):
        for kind, step in steps.items():
            best[kind] = min(best[kind], cpu(step, 1, 8))
    for kind in kinds:
        print(
            f"step, D 199,210, d 750, {kind or 'direct'}: {best[kind]:.2f} ms, {best[kind] / best[None]:.2f} of direct"
        )


def projection(size: int, dim: int) -> None:
    base = np.zeros(size, np.float32)
    out = np.empty_like(base)
    z = np.ones(dim, np.float32)
    add = cpu(lambda: np.add(base, 1, out=out), 3)
    for kind in ("uniform", "cyclic", "fastfood"):
        p = projections.make(kind, size, dim, 0)
        forth, back = cpu(lambda p=p: p.apply(z, base, out), 3), cpu(lambda p=p: p.adjoint(base), 3)
        print(
            f"D {size:,}, d {dim}, {kind}: P z {forth:.0f} ms, P^T g {back:.0f} ms; adding ones {add:.0f} ms"
        )


def memory(width: int, depth: int, dim: int) -> None:
    """Growth of the peak resident set when a network and its gradients get a subspace; nothing else is new then."""
    make = projections.default_kind(depth * width * width)
    Subspace(networks.FlatParameters(nn.Linear(40, 40)), projections.make(make, 1640, 9, 0)).step(
        0.0
    )  # compiles
    module = nn.Sequential(*[nn.Linear(width, width, bias=False) for _ in range(depth)])
    flat = networks.FlatParameters(module)
    x = torch.randn(4, width)
    module(x).square().mean().backward()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    module.zero_grad(set_to_none=True)
    mover = Subspace(flat, projections.make(make, flat.size, dim, 0))
    for _ in range(2):
        module(x).square().mean().backward()
        mover.step(1e-3)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / (4 * flat.size)
    print(f"memory, D {flat.size:,}, {make}: {grown:.2f} parameter vectors beyond parameters and gradients")


def language(path: str, tokens: int = 256) -> None:
    module = open_model(path).build(torch.float32)
    flat = networks.FlatParameters(module)
    ids = torch.randint(0, module.config.vocab_size, (1, tokens))

    def step(mover: Direct | Subspace) -> float:
        def one() -> None:
            module(input_ids=ids, labels=ids, use_cache=False).loss.backward()
            mover.step(1e-5)

        one()
        return cpu(one, 2)

    subspace = Subspace(flat, projections.make(projections.default_kind(flat.size), flat.size, 5000, 0))
    inside = step(subspace)
    subspace.close()
    del subspace
    outside = step(Direct(flat))
    print(
        f"step, D {flat.size:,}, {tokens} tokens: {inside:.0f} ms, direct {outside:.0f} ms: {inside / outside:.2f}"
    )


if __name__ == "__main__":
    memory(1000, 11, 2000)
    transform()
    small_step()
    projection(11_000_000, 2000)
    if sys.argv[1:]:
        language(sys.argv[1])
