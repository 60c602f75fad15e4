"""A checkpoint that is not whole, or packed by others, is refused before anything is made of it."""

from __future__ import annotations

import json
import random

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import architectures
from support.exports import bntools

from bntools.core.errors import BAD_INPUT, BnError
from bntools.core.model import checkpoint
from bntools.core.model.folders import check_folder
from bntools.core.model.open import open_model

CLASSES = (
    "LlamaForCausalLM", "GPT2LMHeadModel", "OPTForCausalLM", "MixtralForCausalLM", "GptOssForCausalLM",
    "LongcatFlashForCausalLM", "Mamba2ForCausalLM", "JetMoeForCausalLM", "BertForMaskedLM",
    "T5ForConditionalGeneration", "JinaEmbeddingsV3ForMaskedLM", "BloomForCausalLM", "XLNetLMHeadModel",
)  # fmt: skip
WEIGHT = "model.layers.0.self_attn.q_proj.weight"


def saved(folder, name="LlamaForCausalLM", **changes):
    model = architectures.tiny(name, **changes)
    architectures.save(model, folder)
    return model


def edit(folder, change, config=None):
    """Change tensors and config of a saved model."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(told | (config or {})))


@pytest.mark.parametrize("name", CLASSES)
def test_a_tensor_that_is_missing_or_of_another_shape_is_named(name, tmp_path):
    """Any tensor, of classes whose tensors are renamed, merged, cut or shared on loading."""
    saved(tmp_path, name)
    model = open_model(str(tmp_path))
    checkpoint.check(model)
    entries = model.store.entries
    for lost in random.Random(0).sample(sorted(entries), 6):
        kept = entries.pop(lost)
        model.__dict__.pop("entries", None)
        with pytest.raises(BnError) as caught:
            checkpoint.check(model)
        assert caught.value.code == BAD_INPUT
        entries[lost] = kept


@pytest.mark.parametrize(
    "words", [("quantize",), ("stack-compress",), ("export",), ("export", "--to", "gguf")]
)
def test_no_tool_that_streams_takes_a_checkpoint_with_a_hole(words, tmp_path, capsys):
    saved(tmp_path / "m")
    edit(tmp_path / "m", lambda tensors: tensors.pop(WEIGHT))
    assert bntools(words[0], tmp_path / "m", "-o", tmp_path / "out", *words[1:]) == 3
    assert WEIGHT in capsys.readouterr().err


def test_a_tensor_of_the_index_that_no_shard_has_is_named(tmp_path):
    model = architectures.tiny("LlamaForCausalLM")
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    check_folder(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    table = json.loads(index.read_text())
    table["weight_map"]["model.more.weight"] = next(iter(table["weight_map"].values()))
    index.write_text(json.dumps(table))
    for open_it in (lambda: open_model(str(tmp_path)), lambda: check_folder(tmp_path)):
        with pytest.raises(BnError, match=r"model\.more\.weight"):
            open_it()


@pytest.mark.parametrize(
    "damage", ["a shard less", "a shard cut short", "a link to nothing", "half a config"]
)
def test_a_folder_that_is_not_whole_is_not_taken_as_fetched(damage, tmp_path):
    model = architectures.tiny("LlamaForCausalLM")
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    shard = sorted(tmp_path.glob("*.safetensors"))[1]
    if damage == "half a config":
        shard = tmp_path / "config.json"
    data = shard.read_bytes()
    shard.unlink()
    if damage == "a link to nothing":
        shard.symlink_to(tmp_path / "blobs" / "gone")
    elif damage != "a shard less":
        shard.write_bytes(data[: len(data) // 2])
    with pytest.raises(BnError, match=shard.name.replace(".", r"\.")) as caught:
        check_folder(tmp_path)
    assert caught.value.code == BAD_INPUT


METHODS = ("fp8", "awq", "bitsandbytes", "hqq", "quanto", "mxfp4", "torchao", "a-method-of-tomorrow")


@pytest.mark.parametrize("method", METHODS)
def test_what_others_packed_is_refused_by_every_tool_but_info(method, tmp_path, capsys):
    saved(tmp_path / "m")
    edit(tmp_path / "m", lambda tensors: None, {"quantization_config": {"quant_method": method}})
    for words in (("quantize",), ("export",), ("stack-compress",), ("eval",)):
        assert (
            bntools(words[0], tmp_path / "m", *(("-o", tmp_path / "out") if words[0] != "eval" else ())) == 3
        )
        assert method in capsys.readouterr().err
    assert bntools("info", tmp_path / "m", "--json") == 0


def test_scales_beside_weights_of_eight_bits_are_not_passed_over(tmp_path, capsys):
    saved(tmp_path / "m")

    def pack(tensors):
        tensors[WEIGHT] = tensors[WEIGHT].to(torch.float8_e4m3fn)
        tensors[f"{WEIGHT}_scale_inv"] = torch.full((1, 1), 0.01)

    edit(tmp_path / "m", pack)
    assert bntools("export", tmp_path / "m", "-o", tmp_path / "out") == 3
    assert "scale_inv" in capsys.readouterr().err


def test_a_head_of_its_own_is_kept_whatever_the_config_says(tmp_path):
    gguf = pytest.importorskip("gguf")
    saved(tmp_path / "m", tie_word_embeddings=False)
    edit(tmp_path / "m", lambda tensors: None, {"tie_word_embeddings": True})
    head = load_file(tmp_path / "m" / "model.safetensors")["lm_head.weight"]
    assert bntools("export", tmp_path / "m", "--to", "gguf", "-o", tmp_path / "m.gguf") == 0
    stored = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert torch.equal(torch.from_numpy(stored["output.weight"].copy()), head)
    assert bntools("quantize", tmp_path / "m", "-o", tmp_path / "q", "--bits", 8) == 0
    assert bntools("export", tmp_path / "q", "-o", f"{tmp_path / 'd'}/") == 0
    for path in (tmp_path / "q", tmp_path / "d", tmp_path / "m.gguf"):
        opened = open_model(str(path))
        assert torch.equal(opened.tensor("lm_head.weight"), head)
        assert torch.equal(opened.build(torch.float32).get_output_embeddings().weight, head)


def test_a_copy_of_the_embedding_is_not_written_twice(tmp_path):
    gguf = pytest.importorskip("gguf")
    saved(tmp_path / "m")
    edit(
        tmp_path / "m",
        lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}),
        {"tie_word_embeddings": True},
    )
    assert bntools("export", tmp_path / "m", "--to", "gguf", "-o", tmp_path / "m.gguf") == 0
    assert "output.weight" not in {tensor.name for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_type_of_float_goes_through_every_tool(dtype, tmp_path, capsys):
    saved(tmp_path / "m").to(dtype).save_pretrained(tmp_path / "m")
    for words in (("quantize", "--bits", 8), ("export",), ("export", "--to", "gguf")):
        assert bntools(words[0], tmp_path / "m", "-f", "-o", tmp_path / "out", *words[1:]) == 0
        found, wanted = (
            open_model(str(tmp_path / one)).tensor(WEIGHT, torch.float32) for one in ("out", "m")
        )
        assert torch.allclose(found, wanted, atol=0.05)


def test_a_large_config_travels(tmp_path):
    labels = {str(index): f"a label of some length {index}" for index in range(4000)}
    saved(tmp_path / "m")
    edit(tmp_path / "m", lambda tensors: None, {"id2label": labels})
    assert bntools("quantize", tmp_path / "m", "-o", tmp_path / "q") == 0
    assert bntools("export", tmp_path / "q", "-o", f"{tmp_path / 'd'}/") == 0
    for path in ("q", "d"):
        opened = open_model(str(tmp_path / path))
        assert opened.config["id2label"] == labels
        assert "config.json" not in opened.files


def test_numbers_that_json_has_no_word_for_are_read_as_transformers_reads_them(tmp_path):
    saved(tmp_path, "Mamba2ForCausalLM")
    told = json.loads((tmp_path / "config.json").read_text())
    assert told["time_step_limit"][1] == {"__float__": "Infinity"}
    assert open_model(str(tmp_path)).linears
