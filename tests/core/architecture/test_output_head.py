"""The output head that is tapped: what else may be done with such a model."""

from __future__ import annotations

import copy
import pickle

import torch

from bntools import open_model
from bntools.core.architecture import output_head

IDS = torch.arange(1, 9)[None]


@torch.no_grad()
def test_a_tapped_model_is_copied_and_pickled_like_any_other():
    model = open_model("default:").build(torch.float32)
    states = output_head.states(model, IDS)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(output_head.states(other, IDS), states)
        assert torch.equal(output_head.own_logits(other)(states[0]), model(IDS).logits[0])
    with torch.no_grad():
        next(other.parameters()).zero_()
    assert torch.equal(output_head.states(model, IDS), states), "a copy's tap is its own"
