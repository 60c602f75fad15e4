"""GPTQ against its definition, and what it promises: less output error, nothing lost on the way."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import make_model

from bntools.core.blockwise.blocks import Blocks
from bntools.core.errors import BAD_INPUT, BnError
from bntools.core.model.open import open_model
from bntools.kernels.grouped.operations import dequantize
from bntools.tools.quantize.fixed import grids
from bntools.tools.quantize.fixed.calibrated import calibrated
from bntools.tools.quantize.fixed.gptq import How, gptq, quadratic
from bntools.tools.quantize.fixed.round_to_nearest import round_to_nearest
from bntools.tools.quantize.fixed.rounding import choose
from bntools.tools.quantize.plan import task_of
from bntools.tools.quantize.report import summarize
from bntools.tools.quantize.settings import SEARCHES, Grid, Settings


def problem(outs=24, inputs=40, seed=0):
    """A weight, and correlated inputs of uneven size."""
    torch.manual_seed(seed)
    x = torch.randn(400, inputs) @ torch.randn(inputs, inputs) * torch.rand(inputs).square() + torch.randn(
        400, 1
    )
    return torch.randn(outs, inputs) * 0.1, x.T @ x / len(x)


def reference(w, h, bits, group, dim):
    """The definition, one column at a time in double precision, with the inverse taken anew for the columns left."""
    w, h = w.double().clone(), h.double().clone()
    levels, outs, inputs = 2**bits - 1, *w.shape
    h += 0.01 * h.diagonal().mean() * torch.eye(inputs)
    original, result = w.clone(), torch.zeros_like(w)
    left = (h.diagonal()).argsort(descending=True, stable=True).tolist()
    while left:
        j = left[0]
        inverse = torch.linalg.inv(h[left][:, left])
        for i in range(outs):
            if dim == "oc":
                values = original[i, j // group * group : (j // group + 1) * group]
            else:
                values = w[i // group * group : (i // group + 1) * group, j]
            s, z = grids.minmax(values.min().float(), values.max().float(), bits, False)
            q = torch.clamp(torch.round(w[i, j] / s.double()) + z, 0, levels)
            result[i, j] = (q - z) * s.double()
        error = (w[:, j] - result[:, j]) / inverse[0, 0]
        w[:, left[1:]] -= error[:, None] * inverse[0, 1:][None]
        left = left[1:]
    return result


def output_error(values, w, h):
    return quadratic(values - w, h)


@pytest.mark.parametrize("dim", ["oc", "ic"])
@pytest.mark.parametrize("group", [8, 20])
def test_it_is_the_definition(group, dim):
    w, h = problem(outs=40)
    found = gptq(w, h, Grid(3, group, dim))
    expected = reference(w, h, 3, group, dim).float()
    # A value at the middle of two levels may fall either way in single precision, and what follows with it.
    assert float((found.values - expected).abs().gt(1e-5).float().mean()) < 0.02
    assert output_error(found.values, w, h) == pytest.approx(output_error(expected, w, h), rel=0.02)


@pytest.mark.parametrize("dim", ["oc", "ic"])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("kind", SEARCHES)
def test_the_file_holds_the_values_that_were_reached(dim, symmetric, kind):
    w, h = problem(outs=30, inputs=150)
    coded = gptq(w, h, Grid(3, 16, dim, symmetric), How(kind))
    assert torch.equal(dequantize(coded.packed), coded.values)
    assert coded.error == pytest.approx(
        output_error(coded.values, w, h) / output_error(torch.zeros_like(w), w, h)
    )


@pytest.mark.parametrize("dim", ["oc", "ic"])
def test_uncorrelated_inputs_leave_rounding_to_nearest(dim):
    w = torch.randn(20, 33)
    coded = gptq(w, torch.diag(torch.rand(33) + 0.1), Grid(3, 16, dim))
    assert torch.equal(coded.values, dequantize(round_to_nearest(w, 3, 16, False, flipped=dim == "ic")))


@pytest.mark.parametrize("dim", ["oc", "ic"])
def test_compensation_beats_rounding_where_inputs_are_correlated(dim):
    ratios = []
    for seed in range(5):
        w, h = problem(40, 64, seed)
        rounded = dequantize(round_to_nearest(w, 3, 16, False, flipped=dim == "ic"))
        ratios.append(output_error(gptq(w, h, Grid(3, 16, dim)).values, w, h) / output_error(rounded, w, h))
    assert np.mean(ratios) < 0.6


def test_the_weighted_grid_lowers_the_output_error():
    ratios = []
    for seed in range(5):
        w, h = problem(40, 64, seed)
        plain, searched = (gptq(w, h, Grid(2, 32), How(kind)).error for kind in SEARCHES)
        ratios.append(searched / plain)
    assert np.mean(ratios) < 0.9


def test_inputs_that_are_always_zero_do_no_harm():
    w, h = problem()
    h[3], h[:, 3] = 0, 0
    coded = gptq(w, h, Grid(3, 8))
    assert coded.dead == 1
    assert torch.isfinite(coded.values).all()
    assert float(coded.values[:, 3].abs().max()) == 0


def test_a_matrix_that_does_not_factor_gets_more_damping_and_says_so():
    w, h = problem()
    broken = h - 0.2 * h.diagonal().mean() * torch.eye(len(h))
    coded = gptq(w, broken, Grid(3, 8))
    assert coded.damping > 0.01
    assert torch.isfinite(coded.values).all()


def test_activations_that_overflow_are_named_not_coded():
    w, h = problem()
    h[0, 0] = torch.inf
    with pytest.raises(BnError) as caught:
        gptq(w, h, Grid(3, 8))
    assert caught.value.code == BAD_INPUT


def windows_of(model):
    return torch.randint(2, 90, (3, 16), generator=torch.Generator().manual_seed(0))


def test_blocks_see_what_the_model_sees(tmp_path):
    original = make_model("llama", tmp_path / "m")
    windows = windows_of(original)
    fed = {}
    for path, module in original.named_modules():
        if isinstance(module, torch.nn.Linear) and ".layers." in f".{path}":
            module.register_forward_pre_hook(
                lambda m, a, path=path: fed.setdefault(path, []).append(a[0].detach())
            )
    with torch.no_grad():
        for row in windows:
            original(row[None])
    expected = {path: torch.cat([x.flatten(0, 1) for x in xs]) for path, xs in fed.items()}
    model = open_model(str(tmp_path / "m")).build(torch.float32)
    blocks = Blocks(model, windows)
    seen = 0
    for path, layer in blocks:
        names = [name for name, m in layer.named_modules() if isinstance(m, torch.nn.Linear)]
        for name, h in blocks.gather(names, advance=True).items():
            x = expected[f"{path}.{name}"]
            torch.testing.assert_close(h, x.T @ x / len(x), rtol=1e-4, atol=1e-5)
            seen += 1
    assert seen == len([path for path in expected if "lm_head" not in path])


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("dim", ["oc", "ic", "ada"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert"])
def test_every_linear_is_coded_once_whatever_the_architecture(kind, dim, sequential, tmp_path):
    original = make_model(kind, tmp_path / "m")
    model = open_model(str(tmp_path / "m"))
    settings = Settings(
        Grid(8, 16, dim), method="gptq", search="weighted", choose="final", sequential=sequential
    )
    task, windows = task_of(model, settings), windows_of(original)
    results = list(calibrated(task, {}, windows))
    assert sorted(result.name for result in results) == sorted(model.entries)
    coded = {result.name: result for result in results if result.spec}
    assert set(coded) == {item.name for item in task.chosen}
    for result in coded.values():
        assert result.measured["weight_error"] < 0.02
    assert any("output_error" in result.measured for result in coded.values())
    assert summarize(results, model)["tensors"] == len(coded)


@pytest.mark.parametrize("criterion", ["diag", "output"])
def test_adadim_choice_is_made_as_asked(tmp_path, criterion):
    original = make_model("llama", tmp_path / "m")
    model = open_model(str(tmp_path / "m"))
    windows = windows_of(original)
    settings = Settings(Grid(3, 16, "ada"), method="gptq", criterion=criterion)
    task = task_of(model, settings)
    choices = choose(task, windows)
    for result in calibrated(task, choices, windows):
        if result.spec:
            errors = result.measured["errors"]
            assert result.spec.dim == ("ic" if errors["ic"] < errors["oc"] else "oc")
            assert result.measured["criterion"] == criterion


@pytest.mark.slow
def test_gptq_on_the_command_line_beats_rounding(run, tmp_path):
    scores = {}
    for method in ("rtn", "gptq"):
        out = tmp_path / f"{method}.safetensors"
        grid = "minmax" if method == "rtn" else "weighted"
        done = run("quantize", "default:", "--bits", "2", "--group-size", "32", "--method", method, "--grid", grid,
                   "--calib-tokens", "4096", "-o", str(out))  # fmt: skip
        assert done.returncode == 0, done.stderr
        told = run("eval", str(out), "--against", "default:", "--tokens", "2000", "--json")
        scores[method] = json.loads(told.stdout)["kl"]["mean"]
    assert scores["gptq"] < 0.7 * scores["rtn"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--choose", "final", "--dim", "ada"],
        ["--sequential"],
        ["--criterion", "output", "--dim", "ada"],
        ["--method", "gptq", "--calib", "none", "--calib-tokens", 0],
    ],
)
def test_options_that_need_each_other_say_so(run, arguments):
    done = run("quantize", "default:", "-o", "never.safetensors", *arguments)
    assert done.returncode == 2
    assert "gptq" in done.stderr
