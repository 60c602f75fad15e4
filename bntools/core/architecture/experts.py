"""Mixtures of experts in a module tree, told by their structure: stacks of expert weights, and routers."""

from __future__ import annotations

import re

import torch
from torch import nn

_COUNTS = re.compile(r"(num|n|total)_(\w+_)?experts?|expert_(num|count)")
_ATTENTION = re.compile(r"att(ention|n)", re.IGNORECASE)
_BLOCK = re.compile(r"layer|block", re.IGNORECASE)


def is_stack(module: nn.Module, parameter: torch.Tensor) -> bool:
    """Whether a 3-D parameter is one matrix an expert: its module is a class of experts, or counts them."""
    if parameter.ndim != 3:
        return False
    if hasattr(module, "is_transposed") or re.search(r"expert", type(module).__name__, re.IGNORECASE):
        return True
    return len(parameter) in _counts(module)


def _counts(module: nn.Module) -> set[int]:
    """How many experts the attributes of a module say there are."""
    return {
        value
        for name, value in vars(module).items()
        if type(value) is int and value > 1 and _COUNTS.fullmatch(name)
    }


def routers(model: nn.Module) -> set[str]:
    """Paths of the linears that choose experts, and of those beside them in the same router.

    A router is a linear with one output an expert, inside the module that owns a stack or list of experts.
    """
    names: set[str] = set()
    for path, owner in model.named_modules():
        numbers = set().union(*(_experts(child) for child in (owner, *owner.children())))
        if not numbers:
            continue
        for name, child in owner.named_children():
            if _experts(child) or _is_apart(child):
                continue
            linears = [inner for inner, module in child.named_modules() if isinstance(module, nn.Linear)]
            if any(child.get_submodule(inner).out_features in numbers for inner in linears):
                names.update(".".join(filter(None, (path, name, inner))) for inner in linears)
    return names


def _is_apart(child: nn.Module) -> bool:
    """Whether a module beside experts is attention or holds experts of its own, which it is searched for itself."""
    return bool(_ATTENTION.search(type(child).__name__)) or any(_experts(part) for part in child.modules())


def _experts(module: nn.Module) -> set[int]:
    """The numbers of experts that a stack or list of them stands for; empty for anything else."""
    if isinstance(module, nn.ModuleList | nn.ModuleDict):
        parts = list(module.values() if isinstance(module, nn.ModuleDict) else module)
        alike = len({type(part) for part in parts}) == 1 and not _BLOCK.search(type(parts[0]).__name__)
        holds = alike and any(isinstance(part, nn.Linear) for part in parts[0].modules())
        return {len(parts)} if holds and len(parts) > 1 else set()
    stacks = {len(p) for p in module.parameters(recurse=False) if is_stack(module, p)}
    return stacks | _counts(module) if stacks else set()
