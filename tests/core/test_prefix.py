"""Targets that make up for what the coded prefix lost, against least squares over whole models."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from conftest import make_model

from bntools.core import prefix
from bntools.core.prefix import Prefix
from bntools.core.source import open_model

# Where the residual stream is seen before a linear adds to it: inputs of norms, outputs of linears that came before.
STREAM = {
    "llama": {"o_proj": ["input_layernorm"], "down_proj": ["post_attention_layernorm"]},
    "gpt2": {"attn.c_proj": ["ln_1"], "mlp.c_proj": ["ln_2"]},
    "phi": {"dense": ["input_layernorm"], "fc2": ["input_layernorm", "self_attn.dense"]},
    "gemma": {"o_proj": ["input_layernorm"], "down_proj": ["post_attention_layernorm"]},
    "mixtral": {},  # what its experts add is no linear's output
}


def seen_by(model, path, windows, output=False):
    """Inputs (or outputs) of a module over all windows [n, any], float64."""
    seen = []
    hook = model.get_submodule(path).register_forward_hook(
        lambda module, args, out: seen.append(out if output else args[0])
    )
    with torch.no_grad():
        model(windows)
    hook.remove()
    return torch.cat([x.reshape(-1, x.shape[-1]) for x in seen]).double()


def stream(model, block, places, windows):
    return sum(
        seen_by(model, f"{block}.{place}", windows, output=index > 0) for index, place in enumerate(places)
    )


def reference(kind, original, coded, path, windows, ridge):
    """W + E[(W (x - x~) + e) x~^T] (E[x~ x~^T] + ridge)^-1."""
    x, fed = (seen_by(model, path, windows) for model in (original, coded))
    w = prefix.matrix(original.get_submodule(path)).double()
    missing = (x - fed) @ w.T
    block = next(path[: match.end()] for match in [re.search(r"\.\d+", path)])
    places = next((places for end, places in STREAM[kind].items() if path.endswith(end)), None)
    if places:
        missing += stream(original, block, places, windows) - stream(coded, block, places, windows)
    moments = fed.T @ fed / len(fed)
    moments += ridge * moments.diagonal().mean() * torch.eye(len(moments))
    return w + missing.T @ fed / len(fed) @ torch.linalg.inv(moments)


def coarse(w):
    """Something that is coded badly."""
    step = w.abs().max() / 2
    return (w / step).round() * step


@pytest.fixture(params=list(STREAM))
def case(request, tmp_path):
    model = make_model(request.param, tmp_path)
    source = open_model(str(tmp_path))
    windows = torch.randint(0, 60, (6, 32), generator=torch.Generator().manual_seed(1))
    return request.param, model, source, windows


def test_targets_are_those_of_least_squares_over_whole_models(case):
    kind, original, source, windows = case
    coded = copy.deepcopy(original)
    found = []
    for targets, _, place in Prefix(source, set(source.linears), windows, ridge=0.05):
        values = {}
        for name, target in targets.items():
            path = source.linears[name].module
            expected = reference(kind, original, coded, path, windows, 0.05)
            assert torch.allclose(target.double(), expected, atol=2e-4 * float(expected.abs().max())), name
            values[name] = coarse(target)
        place(values)
        for name, value in values.items():
            module = coded.get_submodule(source.linears[name].module)
            module.weight.data = value if isinstance(module, torch.nn.Linear) else value.T.contiguous()
        found += targets
    assert set(found) == {
        name
        for name in source.linears
        if "head" not in name and "expert" not in name and "gate.weight" not in name
    }


def test_nothing_lost_moves_nothing(case):
    _, _, source, windows = case
    for targets, _, place in Prefix(source, set(source.linears), windows):
        for name, target in targets.items():
            stored = source.tensor(name, torch.float32)
            w = stored.T if source.linears[name].transposed else stored
            assert torch.allclose(target, w, atol=1e-5)
        place(targets)


def test_threads_change_nothing(case):
    _, _, source, windows = case

    def run(threads):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            found = []
            for targets, _, place in Prefix(source, set(source.linears), windows):
                found += [target.clone() for target in targets.values()]
                place({name: coarse(target) for name, target in targets.items()})
        finally:
            torch.set_num_threads(before)
        return found

    assert all(torch.equal(one, two) for one, two in zip(run(1), run(2), strict=True))


def test_what_is_not_coded_is_left_and_an_embedding_counts(tmp_path):
    model = make_model("llama", tmp_path)
    source = open_model(str(tmp_path))
    windows = torch.randint(0, 60, (2, 16), generator=torch.Generator().manual_seed(1))
    embedding = model.get_input_embeddings().weight.detach()
    wanted = {name for name in source.linears if "down_proj" in name}
    first = next(iter(Prefix(source, wanted, windows, embedding=coarse(embedding))))
    assert list(first[0]) == ["model.layers.0.mlp.down_proj.weight"]
    coded = copy.deepcopy(model)
    coded.get_input_embeddings().weight.data = coarse(embedding)
    expected = reference("llama", model, coded, "model.layers.0.mlp.down_proj", windows, prefix.RIDGE)
    assert torch.allclose(next(iter(first[0].values())).double(), expected, atol=1e-4)
