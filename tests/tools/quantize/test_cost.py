"""The plan of --dry-run against what then happens."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from conftest import make_model, peak_bytes

from bntools.core.model.open import open_model
from bntools.tools.quantize.cost import probe as cost
from bntools.tools.quantize.plan import plan
from bntools.tools.quantize.settings import Grid, Settings


def test_linears_of_a_block_are_counted_with_the_inputs_they_share(tmp_path):
    make_model("llama", tmp_path)
    model = open_model(str(tmp_path))
    blocks = cost.by_block(model, plan(model, Settings(Grid(4, 16))))
    assert list(blocks) == ["model.layers.0", "model.layers.1"]
    assert sorted(cost.inputs_of(blocks["model.layers.0"])) == [32, 32, 32, 48]


def test_more_blocks_take_longer_and_no_more_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "product_rate", lambda: 1e9)
    monkeypatch.setattr(cost, "_coding_seconds", lambda settings, rate: lambda size, out: 1.0)
    make_model("llama", tmp_path)
    model = open_model(str(tmp_path))
    one, two = (Settings(Grid(4, 16), include=(pattern,)) for pattern in (r"layers\.0\.", "layers"))
    sizes = [cost.calibrated_bytes(model, plan(model, which), 8192, 512) for which in (one, two)]
    assert sizes[0] == sizes[1]
    assert cost.calibrated_bytes(model, plan(model, two), 65536, 512) > sizes[1]
    half, whole = (
        cost.calibrated_seconds(model, plan(model, which), which, 8192, 512) for which in (one, two)
    )
    assert whole == pytest.approx(2 * half)
    assert cost.calibrated_seconds(model, plan(model, two), two, 16384, 512) > whole


@pytest.mark.slow
def test_the_plan_names_the_memory_that_is_then_used(tmp_path):
    """A block of 40 million weights: enough for the libraries not to decide."""
    from shutil import copy

    import torch
    import transformers

    from bntools.core.text.documents import tiny_model_dir

    config = transformers.LlamaConfig(
        vocab_size=2048, hidden_size=1024, intermediate_size=5504, num_hidden_layers=2, num_attention_heads=16
    )
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(tmp_path)
    copy(tiny_model_dir() / "tokenizer.json", tmp_path)
    words = [sys.executable, "-m", "bntools", "quantize", str(tmp_path), "--method", "gptq", "--calib-tokens", "2048",
             "--include", r"layers\.0\.", "--threads", "1"]  # fmt: skip
    told = json.loads(subprocess.run([*words, "--dry-run"], capture_output=True, check=True).stdout)
    began = time.monotonic()
    peak = peak_bytes([*words, "-q"])
    assert told["memory_bytes"] == pytest.approx(peak, rel=0.25)
    # Other work on the machine moves both; that the figure is of the right size is what can be held here.
    assert 0.2 < told["seconds"] / (time.monotonic() - began) < 5
