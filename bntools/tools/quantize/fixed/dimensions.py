"""AdaDim: whether the groups of a matrix run along its inputs or its outputs, by the smaller error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bntools.core.architecture.linears import Linear
from bntools.core.progress import Step, no_step
from bntools.kernels.grouped.operations import Packed, dequantize
from bntools.tools.quantize.fixed.gptq import quadratic
from bntools.tools.quantize.fixed.round_to_nearest import round_to_nearest
from bntools.tools.quantize.plan import Errors
from bntools.tools.quantize.settings import Grid

DIMS = ("oc", "ic")
CHOICE_TOKENS = 4096  # of the calibration text that the modules are run on


def best(errors: Errors) -> str:
    """The dimension with the smaller error; ties go to per-OC."""
    return "ic" if errors["ic"] < errors["oc"] else "oc"


def candidate(w: Tensor, grid: Grid, dim: str, transposed: bool) -> Packed:
    """`w` as stored, rounded to nearest with groups along one dimension."""
    return round_to_nearest(w, grid.bits, grid.group, grid.symmetric, flipped=(dim == "ic") != transposed)


def weighted_errors(w: Tensor, grid: Grid, transposed: bool, moments: Tensor | None = None) -> Errors:
    """Relative error of the linear's output for each dimension, with inputs taken as uncorrelated.

    w: as stored. moments: E[x_j^2] of its inputs [in]; None weighs all inputs alike (the weight's own error).
    sum_j h_j sum_i (w_ij - q_ij)^2 / sum_j h_j sum_i w_ij^2: the diagonal of tr(E H E^T).
    """
    axis = 0 if transposed else 1
    weight = None if moments is None else moments.to(torch.float32).unsqueeze(1 - axis)

    def energy(values: Tensor) -> float:
        squares = values.square_()
        return float((squares if weight is None else squares.mul_(weight)).sum(dtype=torch.float64))

    errors = {}
    total = max(energy(w.float().clone()), 1e-300)
    for dim in DIMS:
        rounded = dequantize(candidate(w, grid, dim, transposed))
        errors[dim] = _significant(energy(rounded.sub_(w)) / total)
    return errors


def output_errors(w: Tensor, grid: Grid, hessian: Tensor) -> Errors:
    """Relative error of the linear's output for each dimension, rounded to nearest: tr(E H E^T) / tr(W H W^T).

    w: [out, in]. hessian: E[x x^T] of its inputs [in, in], to any factor.
    """
    total = max(quadratic(w, hessian), 1e-300)
    rounded = {dim: dequantize(candidate(w, grid, dim, transposed=False)) for dim in DIMS}
    return {dim: _significant(quadratic(values.sub_(w), hessian) / total) for dim, values in rounded.items()}


def _significant(value: float) -> float:
    """Four digits, all that is known of it; the same whatever the order of summation on any number of threads."""
    return float(f"{value:.4g}")


@dataclass
class _Parent:
    """A module that holds linears, with what its full-precision pass showed of each."""

    path: str
    children: dict[str, str] = field(default_factory=dict)  # module path -> tensor name
    seen: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


@torch.no_grad()
def module_errors(
    model: nn.Module,
    linears: Mapping[str, tuple[Linear, Grid]],
    windows: Tensor,
    step: Step = no_step,
) -> dict[str, Errors]:
    """Relative output error of each linear for each dimension, by the paper's criterion, in one forward pass.

    Each linear is rounded alone both ways; the error is taken at the output of the module that holds it (attention,
    MLP), or of the linear itself where that is the module's output (o_proj, down_proj). The better one stays in
    place while the later linears of the module are tried, and every module is fed full-precision inputs
    (AdaDim, arXiv 2309.15531, section 3.2). windows: [n, L] token ids, run as one batch.
    """
    search = _Search(model, linears, step)
    try:
        base = getattr(model, "base_model", model)
        base(windows.to(next(model.parameters()).device), **_no_cache(model))
    finally:
        search.close()
    return search.errors


def _no_cache(model: Any) -> dict[str, bool]:
    return {"use_cache": False} if hasattr(model.config, "use_cache") else {}


class _Search:
    """Forward hooks that try both dimensions of every linear as its module comes by."""

    def __init__(self, model: nn.Module, linears: Mapping[str, tuple[Linear, Grid]], step: Step) -> None:
        self.model, self.linears, self.step = model, linears, step
        self.errors: dict[str, Errors] = {}
        self._trying = False
        self._hooks: list[Any] = []
        parents: dict[str, _Parent] = {}
        order = {path: index for index, (path, _) in enumerate(model.named_modules())}
        for name, (linear, _) in sorted(linears.items(), key=lambda item: order[item[1][0].module]):
            path = linear.module.rpartition(".")[0]
            parent = parents.setdefault(path, _Parent(path))
            parent.children[linear.module] = name
            self._hook(
                linear.module, lambda m, a, k, out, p=parent, c=linear.module: self._remember(p, c, a, out)
            )
        for parent in parents.values():
            self._hook(parent.path, lambda m, a, k, out, p=parent: self._finish(p, m, a, k, out))

    def _hook(self, path: str, function: Callable[..., None]) -> None:
        module = self.model.get_submodule(path)
        self._hooks.append(module.register_forward_hook(function, with_kwargs=True))

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _remember(self, parent: _Parent, child: str, args: tuple[Any, ...], output: Tensor) -> None:
        if not self._trying:
            parent.seen[child] = (args[0], output)

    def _finish(self, parent: _Parent, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if self._trying:
            return
        self._trying = True
        target = _first(output)
        originals = {path: self.model.get_submodule(path).weight.data for path in parent.children}
        try:
            for path, name in parent.children.items():
                if path not in parent.seen:
                    continue  # a module this text never reaches, an expert nobody chose
                inputs, own = parent.seen[path]
                child = self.model.get_submodule(path)
                whole = own.data_ptr() != target.data_ptr()
                run = (
                    (lambda: _first(module.forward(*args, **kwargs)))
                    if whole
                    else (lambda c=child, x=inputs: c(x))
                )
                self._try(name, child, run, target if whole else own)
                self.step(1)
        finally:
            for path, weight in originals.items():
                self.model.get_submodule(path).weight.data = weight
            parent.seen.clear()
            self._trying = False

    def _try(self, name: str, child: nn.Module, run: Callable[[], Tensor], target: Tensor) -> None:
        linear, grid = self.linears[name]
        original = child.weight.data
        size = max(float(target.float().square().mean(dtype=torch.float64)), 1e-300)
        rounded = {}
        errors = {}
        for dim in DIMS:
            rounded[dim] = dequantize(
                candidate(original.cpu(), grid, dim, linear.transposed), original.dtype
            ).to(original.device)
            child.weight.data = rounded[dim]
            difference = run().float().sub_(target)
            errors[dim] = _significant(float(difference.square_().mean(dtype=torch.float64)) / size)
        self.errors[name] = errors
        child.weight.data = rounded[best(errors)]


def _first(output: Any) -> Tensor:
    """The hidden states a module returns, alone or first in a tuple."""
    return (
        output
        if isinstance(output, Tensor)
        else next(iter(output.values() if hasattr(output, "values") else output))
    )


def iterate_weight_errors(
    weights: Iterator[tuple[str, Tensor, Linear, Grid]], moments: Mapping[str, Tensor]
) -> Iterator[tuple[str, Errors]]:
    """`weighted_errors` tensor by tensor; the mean over the experts of a stack."""
    for name, w, linear, grid in weights:
        parts = [
            weighted_errors(piece, grid, linear.transposed, moments.get(name))
            for piece in (w if w.ndim == 3 else w[None])
        ]
        yield name, {dim: _significant(sum(part[dim] for part in parts) / len(parts)) for dim in DIMS}
