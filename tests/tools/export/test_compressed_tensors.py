"""compressed-tensors files: transformers loads them, with our logits; both 3-bit packings are read."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import make_model
from safetensors.torch import load_file, save_file
from support.exports import bntools, quantized, weights

from bntools.core.errors import BAD_INPUT, BnError
from bntools.core.foreign.words import from_words
from bntools.core.model.open import open_model

pytest.importorskip("compressed_tensors", reason="compressed-tensors is not installed (make puts it in)")
IDS = torch.tensor([[0, 5, 9, 10, 7, 33, 20, 64]])


@torch.no_grad()
def loaded_logits(folder) -> torch.Tensor:
    """Logits of the model as transformers and compressed-tensors load it."""
    import transformers

    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    return model(IDS).logits


@torch.no_grad()
def own_logits(path) -> torch.Tensor:
    return open_model(str(path)).build(torch.float32)(IDS).logits


@pytest.mark.parametrize("options", [
    ["--bits", 4, "--group-size", 16], ["--bits", 3, "--group-size", 16], ["--bits", 2, "--group-size", -1],
    ["--bits", 3, "--group-size", 16, "--override", "down_proj=bits:8,group:-1", "--exclude", "layers.1.mlp"],
])  # fmt: skip
def test_transformers_loads_it_and_computes_our_logits(options, tmp_path):
    make_model("llama", tmp_path / "m")
    quantized(tmp_path / "q", "--symmetric", *options, source=tmp_path / "m")
    assert bntools("export", tmp_path / "q", "--to", "compressed-tensors", "-q", "-o", f"{tmp_path}/c/") == 0
    own = own_logits(tmp_path / "q")
    assert torch.equal(loaded_logits(tmp_path / "c"), own)
    assert torch.equal(own_logits(tmp_path / "c"), own)


def test_three_bits_are_packed_densely_and_the_older_packing_is_read_too(tmp_path):
    """32 codes in three words; before compressed-tensors 0.20, ten a word, under the same names."""
    model = quantized(tmp_path / "q", "--bits", 3, "--symmetric", "--group-size", 32)
    assert bntools("export", tmp_path / "q", "--to", "compressed-tensors", "-q", "-o", f"{tmp_path}/c/") == 0
    path = tmp_path / "c" / "model.safetensors"
    stored = load_file(path)
    for name in [name for name in stored if name.endswith("weight_packed")]:
        out, inputs = stored[name.replace("packed", "shape")].tolist()
        assert stored[name].shape == (out, inputs * 3 // 32)
        codes = from_words(stored[name], 3, inputs, name).to(torch.int64)
        codes = torch.nn.functional.pad(codes, (0, -inputs % 10)).view(out, -1, 10)
        stored[name] = (codes << (3 * torch.arange(10))).sum(-1).to(torch.int32)
    save_file(stored, path)
    again = open_model(f"{tmp_path}/c")
    assert all(torch.equal(w, again.tensor(name, torch.float32)) for name, w in weights(model).items())
    name = next(name for name in stored if name.endswith("weight_packed"))
    stored[name] = stored[name][:, 1:].contiguous()
    save_file(stored, path)
    with pytest.raises(BnError, match="words a row") as caught:
        weights(open_model(f"{tmp_path}/c"))
    assert caught.value.code == BAD_INPUT


def test_an_asymmetric_file_of_others_is_read(tmp_path):
    """We do not write these, others do: zeros packed along the outputs."""
    from bntools.core.foreign import compressed_tensors
    from bntools.core.foreign.plain_codes import PlainCodes

    random = torch.Generator().manual_seed(0)
    model = quantized(tmp_path / "q", "--symmetric", "--group-size", 32)
    assert bntools("export", tmp_path / "q", "--to", "compressed-tensors", "-q", "-o", f"{tmp_path}/c/") == 0
    path = tmp_path / "c" / "model.safetensors"
    stored, expected = load_file(path), {}
    for name in model.packing:
        out, inputs = model.entries[name].shape
        codes = torch.randint(0, 16, (out, inputs), generator=random, dtype=torch.uint8)
        zeros = torch.randint(0, 16, (out, inputs // 32), generator=random, dtype=torch.uint8)
        coded = PlainCodes(codes, stored[name + "_scale"], zeros, 4, 32)
        stored |= {
            f"{name.removesuffix('.weight')}.{key}": value
            for key, value in compressed_tensors.encode(coded).items()
        }
        expected[name] = coded.dense()
    save_file(stored, path)
    again = open_model(f"{tmp_path}/c")
    assert all(torch.equal(w, again.tensor(name, torch.float32)) for name, w in expected.items())


def test_asymmetric_and_ragged_grids_are_refused_by_name_or_made_symmetric(tmp_path, capsys):
    quantized(tmp_path / "q", "--group-size", 32)
    quantized(tmp_path / "r", "--group-size", 128, "--symmetric")
    capsys.readouterr()
    for name, why in (("q", "asymmetric"), ("r", "do not divide 448 inputs")):
        assert bntools("export", tmp_path / name, "--to", "compressed-tensors", "-o", f"{tmp_path}/c/") == 2
        assert why in capsys.readouterr().err
        assert not (tmp_path / "c").exists()
        to = f"{tmp_path}/{name}c/"
        assert bntools("export", tmp_path / name, "--to", "compressed-tensors", "--requantize", "-o", to) == 0
        assert "rounded anew" in capsys.readouterr().err
        assert torch.equal(loaded_logits(to), own_logits(to))
    groups = json.loads((tmp_path / "rc" / "config.json").read_text())["quantization_config"]["config_groups"]
    assert {group["weights"]["group_size"] for group in groups.values()} == {32, 64}


def test_another_scheme_is_refused_with_its_name(tmp_path):
    quantized(tmp_path / "q", "--symmetric", "--group-size", 32)
    assert bntools("export", tmp_path / "q", "--to", "compressed-tensors", "-q", "-o", f"{tmp_path}/c/") == 0
    path = tmp_path / "c" / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"]["format"] = "nvfp4-pack-quantized"
    path.write_text(json.dumps(config))
    with pytest.raises(BnError, match="nvfp4") as caught:
        open_model(f"{tmp_path}/c")
    assert caught.value.code == BAD_INPUT
