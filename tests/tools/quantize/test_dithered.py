"""The model that divergence is measured against: the same bytes wherever it is made."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SHA256 = "8f7b1ad45d62b937350744c24867382876f73beb54c6e065dece4b9c8c9bff1e"


def test_noise_stays_within_half_a_step_of_the_grid_a_weight_was_on(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import dithered

    steps = torch.rand(64, 1) + 0.1
    on_grid = torch.randint(0, 16, (64, 32)).float()
    on_grid[:, :2] = torch.tensor([0.0, 15.0])
    assert torch.allclose(dithered.step_of(on_grid * steps), steps[:, 0])
    linear = nn.Linear(64, 32, bias=False)
    linear.weight.data = (on_grid * steps).view(32, 64)
    before = linear.weight.data.clone()
    dithered.dither(nn.Sequential(linear))
    moved = (linear.weight.data - before).view(64, 32) / steps
    assert float(moved.abs().max()) <= 0.5001
    assert float(moved.std()) == pytest.approx(1 / 12**0.5, rel=0.1)


@pytest.mark.real
@pytest.mark.slow
def test_the_reference_model_is_the_one_that_was_measured(run, tmp_path):
    done = run("fetch", "smollm2", "-o", f"{tmp_path}/smollm2/")
    assert done.returncode == 0, done.stderr
    script = str(BENCHMARKS / "dithered.py")
    target = tmp_path / "dithered"
    subprocess.run([sys.executable, script, str(tmp_path / "smollm2"), str(target)], check=True, timeout=600)
    assert hashlib.sha256((target / "model.safetensors").read_bytes()).hexdigest() == SHA256


def test_every_row_of_the_benchmark_is_a_command_line(monkeypatch):
    """Names are told apart by --only, and the options exist."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from importlib import util

    spec = util.spec_from_file_location("benchmark_quantize", BENCHMARKS / "quantize.py")
    benchmark = util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "benchmark_quantize", benchmark)
    spec.loader.exec_module(benchmark)
    from bntools.tools.quantize.command import command

    rows = benchmark.jobs(small=False)
    assert len({row.name for row in rows}) == len(rows)
    assert rows[0].name == benchmark.G
    for row in rows:
        if not row.peer:
            command.make_context("quantize", ["default:", *map(str, row.words)])
