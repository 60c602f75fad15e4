"""Opening models: every linear weight is found, nothing else is, and the built model is the original."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from conftest import ARCHITECTURES, make_model
from safetensors.torch import load_file, save_file

from bntools.core.errors import BAD_INPUT, BnError
from bntools.core.model.open import open_input, open_model


def logits(model):
    torch.manual_seed(1)
    out = model(torch.randint(2, 90, (2, 12)))
    return (out.logits if hasattr(out, "logits") else out.last_hidden_state).detach()


def expected_weights(model):
    """Weights of linears counted on the module tree by hand: all matrices that multiply activations, head aside."""
    from transformers.pytorch_utils import Conv1D

    count = sum(
        m.weight.numel()
        for name, m in model.named_modules()
        if isinstance(m, torch.nn.Linear | Conv1D) and name != "lm_head"
    )
    return count + sum(p.numel() for p in model.parameters() if p.ndim == 3)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_linear_weight_is_found_and_the_built_model_is_the_original(kind, tmp_path):
    original = make_model(kind, tmp_path)
    model = open_model(str(tmp_path))
    found = sum(model.entries[name].numel for name in model.linears)
    assert found == expected_weights(original)
    for name in model.linears:
        assert not any(word in name for word in ("embed", "norm", "lm_head", "bias", "wte", "router"))
    built = model.build(torch.float32)
    assert torch.allclose(logits(built), logits(original), atol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "gpt_oss"])
def test_weights_stored_the_other_way_round_are_known(kind, tmp_path):
    make_model(kind, tmp_path)
    model = open_model(str(tmp_path))
    turned = [linear for linear in model.linears.values() if linear.transposed]
    assert turned
    assert all("c_" in linear.tensor or "experts" in linear.tensor for linear in turned)


def test_tied_embeddings_stay_tied_and_are_stored_once(tmp_path):
    make_model("qwen2", tmp_path)
    model = open_model(str(tmp_path))
    assert "lm_head.weight" not in model.entries
    built = model.build(torch.float32)
    assert built.lm_head.weight.data_ptr() == built.model.embed_tokens.weight.data_ptr()


def test_shards_are_one_checkpoint(tmp_path):
    original = make_model("llama", tmp_path / "whole")
    original.save_pretrained(tmp_path / "parts", max_shard_size="10KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 2
    whole, parts = open_model(str(tmp_path / "whole")), open_model(str(tmp_path / "parts"))
    assert set(whole.entries) == set(parts.entries)
    for name in whole.entries:
        assert torch.equal(whole.tensor(name), parts.tensor(name))
    by_index = open_model(str(tmp_path / "parts" / "model.safetensors.index.json"))
    assert set(by_index.entries) == set(whole.entries)


def test_a_missing_shard_is_named(tmp_path):
    original = make_model("llama", tmp_path)
    original.save_pretrained(tmp_path / "parts", max_shard_size="10KB")
    victim = sorted((tmp_path / "parts").glob("*.safetensors"))[1]
    victim.unlink()
    with pytest.raises(BnError, match=victim.name) as caught:
        open_model(str(tmp_path / "parts"))
    assert caught.value.code == BAD_INPUT


def test_a_missing_tensor_is_named_rather_than_filled_at_random(tmp_path):
    make_model("llama", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.1.self_attn.k_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(BnError, match=r"k_proj"):
        open_model(str(tmp_path)).build(torch.float32)


def test_a_pickle_is_refused(tmp_path):
    make_model("llama", tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(BnError, match="no safetensors") as caught:
        open_model(str(tmp_path))
    assert "code" in caught.value.hint


def test_remote_code_is_never_run(tmp_path):
    make_model("llama", tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('run')")
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {
        "model_type": "evil",
        "architectures": ["Evil"],
        "auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.M"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BnError, match="evil"):
        _ = open_model(str(tmp_path)).linears


def test_a_model_quantized_by_others_is_not_taken_for_dense(tmp_path):
    make_model("llama", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {
        "quantization_config": {"quant_method": "gptq"}
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BnError, match="gptq"):
        _ = open_model(str(tmp_path)).linears


def test_a_lone_file_finds_its_config_beside_it(tmp_path):
    make_model("llama", tmp_path)
    assert open_model(str(tmp_path / "model.safetensors")).linears
    shutil.copy(tmp_path / "model.safetensors", tmp_path.parent / "alone.safetensors")
    with pytest.raises(BnError, match=r"config\.json"):
        open_model(str(tmp_path.parent / "alone.safetensors"))


def test_a_manifest_is_followed_and_a_changed_file_is_not_trusted(tmp_path):
    make_model("llama", tmp_path / "m")
    size = sum(child.stat().st_size for child in (tmp_path / "m").iterdir())
    manifest = {"bntools": 1, "kind": "model", "path": str(tmp_path / "m"), "bytes": size}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert open_model(str(tmp_path / "manifest.json")).linears
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"bytes": size + 1}))
    with pytest.raises(BnError, match="manifest says"):
        open_model(str(tmp_path / "manifest.json"))


def test_info_on_a_directory_needs_no_weights_in_memory(tmp_path):
    make_model("llama", tmp_path)
    assert open_input(str(tmp_path)) == tmp_path


def test_a_model_is_built_on_another_device_with_nothing_installed_for_it():
    """torch's device without memory stands for a GPU."""
    built = open_model("default:").build(torch.float32, device="meta")
    assert {parameter.device.type for parameter in built.parameters()} == {"meta"}
