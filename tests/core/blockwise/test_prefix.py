"""Targets that make up for what the coded prefix lost, against least squares over whole models."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from conftest import make_model

from bntools.core.blockwise import blocks, prefix
from bntools.core.blockwise.prefix import Prefix
from bntools.core.blockwise.ridge import RIDGES
from bntools.core.model.open import open_model

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


def least_squares(xx, xy, ridge):
    return xy @ torch.linalg.inv(xx + ridge * xx.diagonal().mean() * torch.eye(len(xx)))


def regressed(x, y, metric, windows):
    """S [out, in] of y = S x: the ridge that errs least on the windows it was not fitted to, halved for all of them."""
    index = torch.arange(len(x)) // windows.shape[1] % 2
    halves = [(x[index == half], y[index == half]) for half in (0, 1)]
    moments = [(a.T @ a / len(a), b.T @ a / len(a)) for a, b in halves]

    def error(ridge):
        lost = 0.0
        for fitted, (a, b) in ((moments[0], halves[1]), (moments[1], halves[0])):
            left, before = b - a @ least_squares(*fitted, ridge).T, b
            lost += float(((left @ metric * left).sum() - (before @ metric * before).sum()) / len(a))
        return lost

    best = min(RIDGES, key=error)
    if error(best) >= 0:
        return torch.zeros(y.shape[1], x.shape[1], dtype=x.dtype)
    return least_squares(x.T @ x / len(x), y.T @ x / len(x), best / 2)


def reference(kind, original, coded, paths, windows):
    """Targets of linears that are fed the same: W + S W, or W + S for one that writes to the stream."""
    x, fed = (seen_by(model, paths[0], windows) for model in (original, coded))
    weights = [prefix.matrix(original.get_submodule(path)).double() for path in paths]
    block = re.match(r".*?\.\d+", paths[0]).group()
    places = next((places for end, places in STREAM[kind].items() if paths[0].endswith(end)), None)
    if places:
        lost = stream(original, block, places, windows) - stream(coded, block, places, windows)
        missing = (x - fed) @ weights[0].T + lost
        return [weights[0] + regressed(fed, missing, torch.eye(missing.shape[1], dtype=x.dtype), windows)]
    solved = regressed(fed, x - fed, sum(w.T @ w for w in weights), windows)
    return [w + w @ solved for w in weights]


def coarse(w):
    """Something that is coded badly."""
    step = w.abs().max() / 2
    return (w / step).round() * step


@pytest.fixture(autouse=True)
def window_by_window(monkeypatch):
    monkeypatch.setattr(blocks, "BATCH_TOKENS", 1)


@pytest.fixture(params=list(STREAM))
def case(request, tmp_path):
    model = make_model(request.param, tmp_path)
    source = open_model(str(tmp_path))
    windows = torch.randint(0, 60, (6, 32), generator=torch.Generator().manual_seed(1))
    return request.param, model, source, windows


def test_targets_are_those_of_least_squares_over_whole_models(case):
    kind, original, source, windows = case
    coded, found = copy.deepcopy(original), []
    for ((targets, _, place),) in Prefix(source, set(source.linears), windows):
        paths = [source.linears[name].module for name in targets]
        expected = reference(kind, original, coded, paths, windows)
        for target, other, path in zip(targets.values(), expected, paths, strict=True):
            assert torch.allclose(target.double(), other, atol=1e-3 * float(other.abs().max())), path
        values = {name: coarse(target) for name, target in targets.items()}
        place(values)
        for path, value in zip(paths, values.values(), strict=True):
            module = coded.get_submodule(path)
            module.weight.data = value if isinstance(module, torch.nn.Linear) else value.T.contiguous()
        found += targets
    assert set(found) == {
        name for name in source.linears
        if "head" not in name and "expert" not in name and "gate.weight" not in name
    }  # fmt: skip


def test_nothing_lost_moves_nothing(case):
    _, _, source, windows = case
    for ((targets, _, place),) in Prefix(source, set(source.linears), windows):
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
            for ((targets, _, place),) in Prefix(source, set(source.linears), windows):
                found += [target.clone() for target in targets.values()]
                place({name: coarse(target) for name, target in targets.items()})
        finally:
            torch.set_num_threads(before)
        return found

    assert all(torch.equal(one, two) for one, two in zip(run(1), run(2), strict=True))


@pytest.mark.parametrize("mixed", [False, True])
def test_threads_change_nothing_where_products_are_large(mixed):
    """Large enough that libraries share one product out, if let."""
    source = open_model("default:")
    windows = torch.randint(0, 500, (6, 128), generator=torch.Generator().manual_seed(1))

    def run(threads):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            for ((targets, _, place),) in Prefix(source, set(source.linears), windows, mixed=mixed):
                yield from targets.values()
                place({name: coarse(target) for name, target in targets.items()})
        finally:
            torch.set_num_threads(before)

    assert all(torch.equal(one, two) for one, two in zip(list(run(1)), list(run(2)), strict=True))


def test_what_is_not_coded_is_left_and_an_embedding_counts(tmp_path):
    model = make_model("llama", tmp_path)
    source = open_model(str(tmp_path))
    windows = torch.randint(0, 60, (2, 16), generator=torch.Generator().manual_seed(1))
    embedding = model.get_input_embeddings().weight.detach()
    wanted = {name for name in source.linears if "down_proj" in name}
    (first,) = next(iter(Prefix(source, wanted, windows, embeddings=[coarse(embedding)])))
    assert list(first.targets) == ["model.layers.0.mlp.down_proj.weight"]
    coded = copy.deepcopy(model)
    coded.get_input_embeddings().weight.data = coarse(embedding)
    (expected,) = reference("llama", model, coded, ["model.layers.0.mlp.down_proj"], windows)
    assert torch.allclose(next(iter(first.targets.values())).double(), expected, atol=1e-3)


def test_models_walked_side_by_side_see_what_each_would_alone(case):
    _, original, source, windows = case
    embedding = original.get_input_embeddings().weight.detach()

    def alone(embedding, code):
        for ((targets, moments, place),) in Prefix(
            source, set(source.linears), windows, embeddings=[embedding]
        ):
            yield targets, moments
            place({name: code(target) for name, target in targets.items()})

    codes = (coarse, lambda w: coarse(w / 2) * 2)
    singles = [list(alone(given, code)) for given, code in zip((None, coarse(embedding)), codes, strict=True)]
    walk = Prefix(source, set(source.linears), windows, embeddings=[None, coarse(embedding)])
    for at, steps in enumerate(walk):
        for (targets, moments, place), single, code in zip(steps, singles, codes, strict=True):
            assert list(targets) == list(single[at][0])
            assert all(torch.equal(target, single[at][0][name]) for name, target in targets.items())
            assert torch.equal(moments, single[at][1])
            place({name: code(target) for name, target in targets.items()})
    assert at == len(singles[0]) - 1


def test_what_is_known_is_not_run_again(tmp_path, monkeypatch):
    """Attention costs as much as products where windows are long."""
    from transformers.models.llama.modeling_llama import LlamaAttention

    make_model("llama", tmp_path)
    source, runs, forward = open_model(str(tmp_path)), [], LlamaAttention.forward
    monkeypatch.setattr(
        LlamaAttention,
        "forward",
        lambda self, *args, **given: (runs.append(1), forward(self, *args, **given))[1],
    )
    windows = torch.randint(0, 60, (6, 32), generator=torch.Generator().manual_seed(1))
    for ((targets, _, place),) in Prefix(source, set(source.linears), windows):
        place({name: coarse(target) for name, target in targets.items()})
    batches = len(windows)
    # To find the groups, by the original, and by the coded model until it is fed and then to its end.
    assert len(runs) == 2 * (1 + 3 * batches)
