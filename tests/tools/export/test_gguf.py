"""GGUF files: the gguf reader finds our weights in them, our reader the same model and tokens."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import make_model
from support.exports import bntools, quantized

from bntools.core.foreign.gguf import GGUFModel
from bntools.core.model.model import Model
from bntools.core.model.open import open_model

gguf = pytest.importorskip("gguf", reason="the gguf package is not installed (extra gguf)")


def stored(path) -> dict[str, tuple[str, np.ndarray]]:
    """Type and dequantized values of each tensor, by the gguf package."""
    reader = gguf.GGUFReader(path)
    return {
        tensor.name: (
            tensor.tensor_type.name,
            gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(
                tuple(reversed(tensor.shape.tolist()))
            ),
        )
        for tensor in reader.tensors
    }


@pytest.mark.parametrize(("options", "kind"), [
    (["--bits", 4, "--symmetric", "--group-size", 32], "Q4_0"),
    (["--bits", 3, "--group-size", 128], "Q4_0"),
    (["--bits", 2, "--group-size", -1, "--symmetric"], "Q4_0"),
    (["--bits", 5, "--symmetric", "--group-size", 64], "Q5_0"),
    (["--bits", 6, "--group-size", 32], "Q8_0"),
    (["--bits", 8, "--symmetric", "--group-size", 32], "Q8_0"),
])  # fmt: skip
def test_codes_are_carried_over_exactly(options, kind, tmp_path):
    model = quantized(tmp_path / "q", *options)
    assert bntools("export", tmp_path / "q", "--to", "gguf", "-q", "-o", tmp_path / "m.gguf") == 0
    found = stored(tmp_path / "m.gguf")
    type_of, values = found["blk.2.ffn_up.weight"]
    w = model.tensor("model.layers.2.mlp.up_proj.weight", torch.float32)
    assert type_of == kind
    assert np.array_equal(values, w.numpy())
    again = GGUFModel(tmp_path / "m.gguf", torch.float32)
    assert all(
        torch.equal(again.tensor(name).float(), model.tensor(name, torch.float32)) for name in model.entries
    )


@pytest.mark.parametrize(("bits", "kind"), [(4, "Q4_1"), (5, "Q5_1")])
def test_offsets_are_rounded_to_float16_and_nothing_else_is(bits, kind, tmp_path, capsys):
    model = quantized(tmp_path / "q", "--bits", bits, "--group-size", 32)
    assert bntools("export", tmp_path / "q", "--to", "gguf", "-o", tmp_path / "m.gguf") == 0
    assert "28 have offsets rounded to float16" in capsys.readouterr().err
    found = stored(tmp_path / "m.gguf")
    name = "model.layers.1.mlp.down_proj.weight"
    type_of, values = found["blk.1.ffn_down.weight"]
    w = model.tensor(name, torch.float32)
    offsets = w.unflatten(1, (-1, 32)).amin(-1).abs().repeat_interleave(32, 1)
    assert type_of == kind
    assert ((torch.from_numpy(values) - w).abs() <= 2.0**-11 * offsets + 1e-7).all()


def test_the_model_and_its_tokens_come_back(tmp_path):
    model = quantized(tmp_path / "q", "--bits", 8, "--symmetric", "--group-size", 32)
    assert bntools("export", tmp_path / "q", "--to", "gguf", "-q", "-o", tmp_path / "m.gguf") == 0
    again = open_model(str(tmp_path / "m.gguf"))
    for key in ("model_type", "hidden_size", "intermediate_size", "num_key_value_heads", "head_dim", "vocab_size",
                "rms_norm_eps", "max_position_embeddings", "bos_token_id", "eos_token_id"):  # fmt: skip
        assert again.config.get(key, model.config[key]) == pytest.approx(model.config[key]), key
    from bntools.core.text.tokens import open_tokenizer

    text = "The sea was calm; 42 whales, naïve and grey,  swam by.\n\nCall me Ishmael."
    ids = [open_tokenizer(m.files, m.config, m.label).ids(text) for m in (model, again)]
    assert list(ids[0]) == list(ids[1])


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3"])
def test_a_dense_model_of_each_architecture_keeps_its_logits(kind, tmp_path):
    make_model(kind, tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    if kind == "mistral":  # attends in a sliding window by default, which the file cannot say
        assert bntools("export", tmp_path / "m", "--to", "gguf", "-q", "-o", tmp_path / "m.gguf") == 2
        path.write_text(json.dumps(json.loads(path.read_text()) | {"sliding_window": None}))
    assert bntools("export", tmp_path / "m", "--to", "gguf", "-q", "-o", tmp_path / "m.gguf") == 0
    ids = torch.arange(12)[None]
    original, store = open_model(str(tmp_path / "m")), GGUFModel(tmp_path / "m.gguf", torch.float32)
    again = Model(store, json.loads(json.dumps(store.config)), store.files, kind)
    with torch.no_grad():
        assert torch.equal(original.build(torch.float32)(ids).logits, again.build(torch.float32)(ids).logits)


def test_llama_3s_rotary_scaling_goes_along(tmp_path):
    make_model("llama", tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    config = json.loads(path.read_text())
    rope = {"rope_theta": 500000.0, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # fmt: skip
    path.write_text(json.dumps(config | {"rope_parameters": rope}))
    assert bntools("export", tmp_path / "m", "--to", "gguf", "-q", "-o", tmp_path / "m.gguf") == 0
    again = open_model(str(tmp_path / "m.gguf")).config["rope_parameters"]
    assert {key: again[key] for key in rope} == pytest.approx(rope)


def test_what_no_block_holds_is_refused_by_name_or_rounded_anew(tmp_path, capsys):
    for options, why in (
        (["--per-ic", "--symmetric"], "per IC"),
        (["--bits", 8, "--group-size", 32], "no block type"),
        (["--bits", 4, "--group-size", 48], "blocks of 32"),
    ):
        model = quantized(tmp_path / "q", "--include", "up_proj", "-f", *options)
        capsys.readouterr()
        assert bntools("export", tmp_path / "q", "--to", "gguf", "-o", tmp_path / "m.gguf") == 2
        assert why in capsys.readouterr().err
        assert not (tmp_path / "m.gguf").exists()
        assert (
            bntools("export", tmp_path / "q", "--to", "gguf", "--requantize", "-o", tmp_path / "m.gguf") == 0
        )
        assert "4 were rounded anew" in capsys.readouterr().err
        values = stored(tmp_path / "m.gguf")["blk.0.ffn_up.weight"][1]
        w = model.tensor("model.layers.0.mlp.up_proj.weight", torch.float32)
        assert float((torch.from_numpy(values) - w).norm() / w.norm()) < 0.12
        (tmp_path / "m.gguf").unlink()


def test_what_gguf_does_not_have_is_a_usage_error(tmp_path, capsys):
    make_model("gpt2", tmp_path / "m")
    for words in (
        [tmp_path / "m", "--to", "gguf", "-o", tmp_path / "m.gguf"],
        ["default:", "--to", "gguf", "-o", f"{tmp_path}/folder/"],
        ["default:", "--to", "hf", "--requantize", "-o", f"{tmp_path}/folder/"],
    ):
        assert bntools("export", *words) == 2
        assert "hint:" in capsys.readouterr().err
    assert [child.name for child in tmp_path.iterdir()] == ["m"]


@pytest.mark.slow
def test_a_gguf_goes_down_a_pipe(tmp_path, run):
    done = run("export", "default:", "--to", "gguf")
    assert done.returncode == 0, done.stderr
    assert done.stdout[:4] == b"GGUF"
    report = run("info", data=done.stdout)
    assert report.returncode == 0, report.stderr
    assert json.loads(report.stdout)["weights"] == 1_271_200
