"""GPTQ files: what their own definition says they hold is what we had, and what they cannot hold is refused."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.exports import bntools, quantized, weights

from bntools.core.errors import BAD_INPUT, BnError
from bntools.core.model.open import open_model

ONE = ("--include", "layers.0.mlp.up_proj")


def field(words: list[int], index: int, bits: int) -> int:
    """Field `index` of a little-endian stream of 32-bit words."""
    at = index * bits
    low = (words[at // 32] & 0xFFFFFFFF) >> (at % 32)
    if at % 32 + bits > 32:
        low |= (words[at // 32 + 1] & 0xFFFFFFFF) << (32 - at % 32)
    return low & ((1 << bits) - 1)


def reference(stored: dict[str, torch.Tensor], module: str, bits: int, first: bool) -> torch.Tensor:
    """W [out, in] by the format's definition, one weight at a time: scales[g_idx] * (code - zero)."""
    qweight, qzeros = stored[f"{module}.qweight"].T.tolist(), stored[f"{module}.qzeros"].tolist()
    scales, order = stored[f"{module}.scales"].float(), stored[f"{module}.g_idx"].tolist()
    w = torch.empty(len(qweight), len(order))
    zeros = [[field(row, n, bits) + first for n in range(len(qweight))] for row in qzeros]
    for n, words in enumerate(qweight):
        for k, g in enumerate(order):
            w[n, k] = scales[g, n] * (field(words, k, bits) - zeros[g][n])
    return w


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(("to", "options"), [
    ("gptq", ["--group-size", 32]), ("gptq", ["--symmetric", "--group-size", -1]),
    ("gptq_v2", ["--group-size", 128]), ("gptq_v2", ["--symmetric", "--group-size", 64]),
])  # fmt: skip
def test_the_file_holds_every_weight_by_the_formats_own_definition(bits, to, options, tmp_path):
    """160 inputs: groups of 64 and 128 end in a shorter one."""
    model = quantized(tmp_path / "q", *ONE, "--bits", bits, *options)
    assert bntools("export", tmp_path / "q", "--to", to, "-q", "-o", f"{tmp_path}/g/") == 0
    settings = json.loads((tmp_path / "g" / "config.json").read_text())["quantization_config"]
    assert (settings["bits"], settings["checkpoint_format"]) == (bits, to)
    assert settings["sym"] == ("--symmetric" in options)
    assert json.loads((tmp_path / "g" / "quantize_config.json").read_text()) == settings
    stored = load_file(tmp_path / "g" / "model.safetensors")
    (name,) = model.packing
    found = reference(stored, name.removesuffix(".weight"), bits, first=to == "gptq")
    assert torch.equal(found, model.tensor(name, torch.float32))


def test_what_is_dense_or_on_another_grid_is_said_module_by_module(tmp_path):
    quantized(
        tmp_path / "q", "--exclude", "layers.1", "--override", "down_proj=bits:8,group:64", "--group-size", 32
    )
    assert bntools("export", tmp_path / "q", "--to", "gptq", "-q", "-o", f"{tmp_path}/g/") == 0
    settings = json.loads((tmp_path / "g" / "config.json").read_text())["quantization_config"]
    assert (settings["bits"], settings["group_size"]) == (4, 32)
    assert settings["dynamic"][r"+:^model\.layers\.0\.mlp\.down_proj$"] == {
        "bits": 8,
        "group_size": 64,
        "sym": False,
    }
    assert settings["dynamic"][r"-:^model\.layers\.1\.mlp\.down_proj$"] == {}
    assert len(settings["dynamic"]) == 3 + 7


def test_a_gptq_model_is_read_as_it_was_written(tmp_path):
    model = quantized(tmp_path / "q", "--bits", 3, "--group-size", 64)
    assert bntools("export", tmp_path / "q", "--to", "gptq", "-q", "-o", f"{tmp_path}/g/") == 0
    again = open_model(f"{tmp_path}/g")
    assert set(again.packing) == set(model.packing)
    assert all(torch.equal(w, again.tensor(name, torch.float32)) for name, w in weights(model).items())
    assert again.bits_per_weight(again.packing) == model.bits_per_weight(model.packing)
    assert "quantization_config" not in again.config


def test_activation_order_is_refused_not_misread(tmp_path):
    quantized(tmp_path / "q", *ONE, "--group-size", 32)
    assert bntools("export", tmp_path / "q", "--to", "gptq", "-q", "-o", f"{tmp_path}/g/") == 0
    path = tmp_path / "g" / "model.safetensors"
    stored = load_file(path)
    name = next(name for name in stored if name.endswith("g_idx"))
    stored[name] = stored[name].flip(0)
    save_file(stored, path)
    with pytest.raises(BnError, match="order") as caught:
        weights(open_model(f"{tmp_path}/g"))
    assert caught.value.code == BAD_INPUT


def test_a_zero_of_0_goes_into_format_2_only(tmp_path, capsys):
    """Readers of format 1 differ on a stored zero of -1: some let it borrow from its neighbour."""
    source = tmp_path / "m"
    assert bntools("export", "default:", "-q", "-o", f"{source}/") == 0
    stored = load_file(source / "model.safetensors")
    stored["model.layers.0.mlp.up_proj.weight"].abs_()
    save_file(stored, source / "model.safetensors")
    model = quantized(tmp_path / "q", *ONE, "--group-size", 32, source=source)
    capsys.readouterr()
    assert bntools("export", tmp_path / "q", "--to", "gptq", "-q", "-o", f"{tmp_path}/g/") == 2
    assert "a zero is 0" in capsys.readouterr().err
    assert not (tmp_path / "g").exists()
    assert bntools("export", tmp_path / "q", "--to", "gptq_v2", "-q", "-o", f"{tmp_path}/g2/") == 0
    again = open_model(f"{tmp_path}/g2")
    assert all(torch.equal(w, again.tensor(name, torch.float32)) for name, w in weights(model).items())
    assert (
        bntools("export", tmp_path / "q", "--to", "gptq", "--requantize", "-q", "-o", f"{tmp_path}/g1/") == 0
    )
    (w,), (near,) = weights(model).values(), weights(open_model(f"{tmp_path}/g1")).values()
    assert (near - w).norm() < 0.08 * w.norm()


def test_per_ic_groups_are_refused_by_name_or_rounded_anew_with_the_error_said(tmp_path, capsys):
    model = quantized(tmp_path / "q", "--per-ic", "--include", "mlp")
    capsys.readouterr()
    assert bntools("export", tmp_path / "q", "--to", "gptq", "-o", f"{tmp_path}/g/") == 2
    message = capsys.readouterr().err
    assert "model.layers.0.mlp" in message
    assert "per IC" in message
    assert "--requantize" in message
    assert bntools("export", tmp_path / "q", "--to", "gptq", "--requantize", "-o", f"{tmp_path}/g/") == 0
    assert "12 were rounded anew" in capsys.readouterr().err
    again = open_model(f"{tmp_path}/g")
    before, after = weights(model), weights(again)
    lost = sum(float((after[name] - w).double().square().sum()) for name, w in before.items())
    total = sum(float(w.double().square().sum()) for w in before.values())
    assert again.report["added_error"] == pytest.approx((lost / total) ** 0.5, rel=1e-3)
    assert again.report["tensors"] == {"copied": 26, "carried": 0, "requantized": 12}


def test_codes_that_do_not_fill_words_are_refused_whatever_is_asked(tmp_path, capsys):
    from conftest import make_model

    make_model("llama", tmp_path / "m")
    quantized(tmp_path / "q", "--bits", 3, "--group-size", 16, source=tmp_path / "m")
    for more in ([], ["--requantize"]):
        assert bntools("export", tmp_path / "q", "--to", "gptq", *more, "-o", f"{tmp_path}/g/") == 2
        assert "whole words" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["scales", "g_idx", "qzeros", "qweight", "nothing packed"])
def test_a_damaged_checkpoint_of_others_is_bad_input(damage, tmp_path):
    quantized(tmp_path / "q", *ONE, "--group-size", 32)
    assert bntools("export", tmp_path / "q", "--to", "gptq", "-q", "-o", f"{tmp_path}/g/") == 0
    path = tmp_path / "g" / "model.safetensors"
    stored = load_file(path)
    for name in [name for name in stored if "up_proj.qweight" in name or "up_proj.scales" in name]:
        if damage == "nothing packed":
            del stored[name]
    name = f"model.layers.0.mlp.up_proj.{damage}"
    if name in stored:
        stored[name] = stored[name][1:].clone()
    save_file(stored, path)
    with pytest.raises(BnError) as caught:
        weights(open_model(f"{tmp_path}/g"))
    assert caught.value.code == BAD_INPUT
