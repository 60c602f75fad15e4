"""The network as a seed and d numbers: trained at the dimension found, coded, scored once more, and written."""

from __future__ import annotations

from typing import Any

import torch

from bntools.core.artifact.writer import Writer
from bntools.core.errors import BnError
from bntools.core.model import subspace
from bntools.kernels.projections import projections
from bntools.tools.intrinsic_dim.problem import SAID, Gradients
from bntools.tools.intrinsic_dim.runs import Run
from bntools.tools.intrinsic_dim.search import Found


def choose(search: Found) -> Run:
    """The run to keep: among those at the first dimension whose mean reaches the target, the best on held-out data.

    Raises BnError (exit 1) where no dimension reached the target.
    """
    counted = [run for run in search.runs if run.job.phase == "confirm" and run.outcome.point is not None]
    for dim, mean in zip(search.curve.dims, search.curve.mean, strict=True):
        here = [run for run in counted if run.job.dim == dim]
        if mean >= search.target and here:
            return max(here, key=lambda run: run.outcome.validation)
    raise BnError("no dimension reached the target: there is no network to write", "--dims with larger ones")


def keep(problem: Gradients, run: Run, codes: str, out: Writer) -> dict[str, Any]:
    """Put the run's network into `out` and return what to report of it: sizes, and the score of what is written.

    codes: `fp32`, `fp16` or `int8`. A network with buffers (batch normalization) is trained once more for them: the
    same run, so it ends where it did. They are kept whole.
    """
    job, point = run.job, run.outcome.point
    assert job.dim is not None
    torch.manual_seed(job.seed)
    flat, buffers = problem.flat(job.seed), {}
    if kept := _buffers(flat.module):
        again, trained = problem.trained(job)
        point = again.point
        buffers = {name: _buffers(trained.module)[name] for name in kept}
        for name, place in kept.items():
            place.copy_(buffers[name])
    facts = subspace.Facts(
        projection=problem.kind, version=projections.VERSION, size=flat.size, dim=job.dim, seed=job.seed,
        said=problem.source.projection == SAID, theta0=subspace.digest(flat.theta), network=problem.network_facts(),
    )  # fmt: skip
    tensors = subspace.encode(point, codes)
    theta = flat.theta.numpy()
    subspace.make(facts, flat.layers()).apply(subspace.decode(tensors), theta, theta)
    subspace.write(out, facts, tensors, buffers)
    numbers = sum(tensor.numel() * tensor.element_size() for tensor in [*tensors.values(), *buffers.values()])
    return {"dim": job.dim, "seed": job.seed, "codes": codes, "bytes": numbers, "score": problem.score(flat, "test"),
            "score_before_coding": run.outcome.score, "ratio": round(4 * flat.size / numbers, 1)}  # fmt: skip


def _buffers(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Buffers that belong to the module's state."""
    state = module.state_dict()
    return {name: buffer for name, buffer in module.named_buffers() if name in state}
