"""Mixtures of experts: in every class of transformers that has experts, they are coded and routers are kept."""

from __future__ import annotations

import re

import pytest
import torch
import transformers
from support import architectures

from bntools.core.architecture import linears

ROUTER = re.compile(r"\.(gate|router|wg|classifier|layer|switch)\.weight$")


def mixtures():
    """(class name, model without memory) of each class whose modules have experts."""
    for family in architectures.MAPPINGS:
        for name in architectures.classes(family):
            kind = getattr(transformers, name)
            text = " ".join(getattr(kind.config_class, "__annotations__", {}))
            if "expert" not in text:
                continue
            try:
                with torch.device("meta"):
                    yield name, kind(architectures.shrunk(name))
            except Exception as error:  # its default config does not build at these sizes
                print(name, error)


@pytest.fixture(scope="module")
def models():
    found = dict(mixtures())
    assert len(found) > 40
    return found


def beside_experts(model, path):
    """Whether experts are in the module that owns a module, or in the next one up."""
    owner = path.rpartition(".")[0]
    return any(
        "expert" in f"{name} {type(child).__name__}".lower()
        for place in (owner, owner.rpartition(".")[0])
        for name, child in model.get_submodule(place).named_children()
    )


def test_linears_that_choose_experts_are_routers_and_nothing_else_is(models):
    """Known here by their names, there by their outputs."""
    wrong = []
    for name, model in models.items():
        for found in linears.linear_parameters(model).values():
            weight = model.get_parameter(found.tensor)
            named = bool(ROUTER.search(found.tensor)) and weight.ndim == 2 and len(weight) in (8, 10)
            named = named and beside_experts(model, found.module)
            if found.router != named:
                wrong.append((name, found.tensor, list(weight.shape)))
    assert not wrong


def test_every_stack_of_expert_matrices_is_a_linear_weight(models):
    for name, model in models.items():
        known = linears.linear_parameters(model)
        for path, parameter in model.named_parameters():
            stacked = parameter.ndim == 3 and "expert" in path and min(parameter.shape[1:]) > 1
            assert not stacked or path in known, (name, path)
