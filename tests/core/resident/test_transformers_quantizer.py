"""transformers loads packed directories once bntools is imported, and never quietly without it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from conftest import make_model

from bntools.cli import run as bntools
from bntools.core.errors import BnError
from bntools.core.model.open import open_model

IDS = torch.tensor([[0, 5, 9, 10, 7, 33, 20, 64]])


def quantized(kind, folder, *options):
    make_model(kind, folder / "m")
    words = ["quantize", folder / "m", "-q", "-o", f"{folder}/q/", *options]
    assert bntools([str(word) for word in words]) == 0
    return folder / "q"


@torch.no_grad()
def logits(model):
    return model(IDS).logits


@pytest.mark.parametrize(("kind", "packed"), [("llama", 14), ("qwen2", 14), ("gpt2", 0), ("gpt_oss", 0)])
@pytest.mark.parametrize("options", [["--bits", 3, "--group-size", 16], ["--per-ic", "--symmetric"]])
def test_a_packed_directory_loads_with_our_logits(kind, packed, options, tmp_path):
    """Linears stay packed; Conv1D and stacks of experts have no packed form there and become dense."""
    import transformers

    folder = quantized(kind, tmp_path, *options)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert sum(type(module).__name__ == "PackedLinear" for module in model.modules()) == packed
    expected = logits(open_model(str(folder)).build(torch.float32))
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)
    dense = model.dequantize() if packed else model
    assert torch.equal(logits(dense), expected)
    dense.save_pretrained(tmp_path / "dense")
    assert torch.equal(
        logits(transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "dense")), expected
    )


def test_one_token_takes_the_packed_product_and_the_same_choice(tmp_path):
    import transformers

    folder = quantized("llama", tmp_path, "--bits", 4, "--group-size", 16)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    dense = open_model(str(folder)).build(torch.float32)
    settings = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 1}
    assert torch.equal(model.generate(IDS, **settings), dense.generate(IDS, **settings))


def test_dense_from_the_start_where_that_is_asked_for(tmp_path):
    import transformers

    from bntools.core.resident.transformers_quantizer import BntoolsConfig

    folder = quantized("llama", tmp_path, "--bits", 3, "--group-size", 16)
    with pytest.warns(UserWarning, match="quantization_config"):
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, quantization_config=BntoolsConfig(dequantize=True)
        )
    assert type(model.model.layers[0].mlp.up_proj) is torch.nn.Linear
    assert torch.equal(logits(model), logits(open_model(str(folder)).build(torch.float32)))


def test_a_model_whose_weights_are_merged_on_loading_is_refused(tmp_path):
    import transformers

    folder = quantized("mixtral", tmp_path, "--group-size", 16)
    with pytest.raises(BnError, match="by itself"):
        transformers.AutoModelForCausalLM.from_pretrained(folder)


def test_a_missing_part_is_named(tmp_path):
    import transformers

    folder = quantized("llama", tmp_path, "--group-size", 16)
    table = json.loads((folder / "quantization.json").read_text())
    name = next(iter(table["tensors"]))
    table["tensors"][f"{name}x"] = table["tensors"][name]
    (folder / "quantization.json").write_text(json.dumps(table))
    with pytest.raises(BnError, match=f"{name}x.codes"):
        transformers.AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.slow
def test_it_takes_one_import_before_or_after_and_costs_nothing_else(tmp_path):
    folder = quantized("llama", tmp_path, "--group-size", 16)
    load = f"import transformers; transformers.AutoModelForCausalLM.from_pretrained({str(folder)!r})"
    light = "assert not {'torch', 'numpy', 'transformers'} & set(sys.modules)"
    for order in (
        f"import sys, bntools; {light}; {load}",
        f"{load.partition(';')[0]}.quantizers.auto, bntools;{load}",
    ):
        done = subprocess.run([sys.executable, "-c", order], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    done = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, check=False)
    assert "no file named model.safetensors" in done.stderr, (
        "without bntools, no weights rather than random ones"
    )
