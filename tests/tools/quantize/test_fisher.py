"""GPTQ with moments weighted by gradients, and factors trained on fixed codes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from conftest import make_model
from support.exports import bntools

from bntools.core.artifact.reader import open_path
from bntools.core.importance.fisher_sweep import Sweep
from bntools.core.model.open import open_model
from bntools.core.work.folder import Work
from bntools.tools.quantize.fixed import factored, fisher
from bntools.tools.quantize.fixed.gptq import How, gptq
from bntools.tools.quantize.plan import task_of
from bntools.tools.quantize.settings import Grid, Settings

FAST = ("--calib-tokens", 1024, "-q")
SETTINGS = Settings(Grid(3, 16), method="gptq", fisher=True)


def windows_of():
    return torch.randint(2, 90, (4, 16), generator=torch.Generator().manual_seed(0))


def swept(task, work=None):
    return fisher.swept(task, windows_of(), work=work)


@pytest.fixture
def model(tmp_path):
    make_model("llama", tmp_path / "m")
    return open_model(str(tmp_path / "m"))


def test_every_linear_is_coded_with_the_moments_of_the_sweep(model):
    task = task_of(model, SETTINGS)
    moments = swept(task)
    results = {r.name: r for r in fisher.coded(task, {}, moments) if r.spec}
    assert set(results) == set(model.linears)
    for _, block in Sweep(model, windows_of(), mixed=True):
        for name, found in block.items():
            hessian = found.inputs
            assert torch.equal(moments.get(name)[0], hessian)
            expected = gptq(model.tensor(name, torch.float32), hessian, Grid(3, 16), How(damping=0.02))
            assert torch.equal(results[name].tensors[f"{name}.codes"], expected.packed.codes)


@pytest.mark.parametrize("moment", [0, 1, 9])
def test_stopped_at_any_tensor_it_goes_on_to_the_same_result_without_a_second_sweep(
    model, moment, tmp_path, monkeypatch
):
    task = task_of(model, SETTINGS)
    whole = list(fisher.coded(task, {}, swept(task)))
    work = Work(str(tmp_path / "w"), {})
    stream = fisher.coded(task, {}, swept(task, work), work)
    for _ in range(moment):
        next(stream)
    stream.close()
    monkeypatch.setattr(fisher, "Sweep", None)
    again = list(fisher.coded(task, {}, swept(task, work), work))
    assert [r.name for r in whole] == [r.name for r in again]
    for left, right in zip(whole, again, strict=True):
        assert all(torch.equal(left.tensors[key], right.tensors[key]) for key in left.tensors)


def rounded_results(model, settings):
    from bntools.tools.quantize.fixed.rounding import quantize

    return list(quantize(task_of(model, settings), {}))


@pytest.mark.parametrize("balance", [False, True])
def test_trained_factors_are_stored_as_they_were_measured(model, balance, monkeypatch):
    """Read back, the weights are the codes times the factors; with factors of their own, times both."""
    monkeypatch.setattr(factored.distill, "_BATCH", 2)
    settings = Settings(Grid(3, 16, balance=balance), search="weighted", distill=12)
    results = rounded_results(model, settings)
    before = {r.name: {k: t.clone() for k, t in r.tensors.items()} for r in results}
    done, report = factored.factored(task_of(model, settings), results, windows_of().repeat(3, 1))
    assert report["kl_end"] < report["kl_start"]
    from bntools.core.packing import grouped

    for result in done:
        if result.spec is None:
            continue
        assert torch.equal(
            result.tensors[f"{result.name}.codes"], before[result.name][f"{result.name}.codes"]
        )
        bare = replace(result.spec, inputs=0, outputs=0)
        get = result.tensors.__getitem__
        plain = grouped.dense(result.name, bare, get, torch.float32)
        cols, rows = (
            grouped.factors(get(f"{result.name}.{part}"), report["octave"]) for part in ("inputs", "outputs")
        )
        assert torch.equal(
            grouped.dense(result.name, result.spec, get, torch.float32), plain * cols * rows[:, None]
        )
    moved = [r for r in done if r.spec is None and not torch.equal(r.tensors[r.name], before[r.name][r.name])]
    assert moved, "gains of norms are trained as well"


@pytest.mark.slow
def test_distillation_diverges_less_and_the_file_still_fits(tmp_path, capsys):
    found = []
    base = ("--method", "gptq", "--scales", 2, "--budget", 2.6, "--calib-tokens", 8192, "-q")
    for steps in (0, 12):
        path = tmp_path / f"{steps}.safetensors"
        assert bntools("quantize", "default:", *base, "-o", path, "--distill", steps) == 0
        capsys.readouterr()
        assert bntools("eval", path, "--tokens", 4096, "--json") == 0
        found.append(json.loads(capsys.readouterr().out))
        assert found[-1]["bits_per_weight"]["linear"] <= 2.6
    with open_path(tmp_path / "12.safetensors") as source:
        report = source.report["distill"]
    assert report["kl_end"] < report["kl_start"]
    # The factors are paid for by the codes; at 160 inputs that is a tenth of a bit, here in the budget.
    assert found[1]["kl"]["mean"] < 1.1 * found[0]["kl"]["mean"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--fisher"], "--method gptq"),
        (["--fisher", "--method", "gptq", "--sequential"], "--parallel"),
        (["--distill", "3", "--calib", "none", "--calib-tokens", 0], "calibration text"),
        (["--distill", "3", "--shard", "0/2"], "whole model"),
    ],
)
def test_what_cannot_be_done_is_said(words, told, tmp_path, capsys):
    assert bntools("quantize", "default:", "-q", "-o", tmp_path / "q", *words) == 2
    assert told in capsys.readouterr().err
