"""stack-compress --codec bitstack: the paper's method as a file of which every prefix is a model."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import ARCHITECTURES, make_model
from safetensors.torch import load_file, save_file
from support.stacked import call, equal, weights, write_tokenizer

from bntools.core.artifact.header import BLOCK_PREFIX
from bntools.core.artifact.reader import open_path
from bntools.core.blockwise.blocks import input_norms
from bntools.core.errors import BAD_INPUT, USAGE, BnError
from bntools.core.model.open import open_model
from bntools.core.resident.resize import Resident
from bntools.kernels.stack import absolute_binary
from bntools.tools.stack_compress.scaling import beside, fused

FAST = ("--codec", "bitstack", "--calib-tokens", 2048, "-q", "--curve", 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bitstack")


@pytest.fixture(scope="module")
def made(folder):
    path = folder / "b.safetensors"
    call(
        "stack-compress",
        "default:",
        *FAST,
        "--curve",
        3,
        "--levels",
        6,
        "-o",
        path,
        "--work",
        folder / "work",
    )
    return path


def test_a_cut_file_a_budget_and_a_truncated_file_are_the_same_model(made, folder):
    with open_path(made) as source:
        base = source.header.base_bytes
    whole = made.stat().st_size
    cut, short = folder / "cut.safetensors", folder / "short.safetensors"
    for size in (base, *np.random.default_rng(0).integers(base, whole, 4).tolist(), whole - 1, whole):
        cut.write_bytes(made.read_bytes()[:size])
        call("stack-compress", "--truncate", size, made, "-f", "-o", short)
        found = weights(made, size)
        assert equal(found, weights(cut))
        assert equal(found, weights(short))
        assert all(bool(torch.isfinite(value).all()) for value in found.values())
        load_file(short)
        assert short.stat().st_size <= size
    call("eval", made, "--budget", base - 1, code=BAD_INPUT)
    call("export", made, "--budget", base + 50_000, "-o", folder / "dense")
    assert equal(weights(folder / "dense"), weights(made, base + 50_000))


def test_errors_fall_level_by_level_and_blocks_are_listed(made):
    report = call("info", made, "--blocks", "--against", "default:")
    with open_path(made) as source:
        position = source.header.base_bytes
    seen = {}
    for block in report["blocks"]:
        assert block["offset"] == position
        position += block["bytes"]
        assert block["level"] == seen.get(block["name"], 1) + 1
        seen[block["name"]] = block["level"]
    assert position == made.stat().st_size
    for row in report["errors"]:
        assert len(row["errors"]) == 6
        assert all(after < before for before, after in pairwise(row["errors"]))
    curve = [kl for _, kl in report["curve"]]
    assert curve[0] > 3 * curve[1] > 3 * curve[2]
    assert report["report"]["predicted_kl"]["base"] > report["report"]["predicted_kl"]["all"]


def test_the_same_bytes_whatever_the_threads_and_after_a_break(made, folder):
    words = ("stack-compress", "default:", *FAST, "--levels", 2, "--rank", 3)
    one, two, third = (folder / f"{name}.safetensors" for name in ("one", "two", "third"))
    call(*words, "--threads", 1, "-o", one, "--work", folder / "again")
    call(*words, "--threads", 2, "-o", two)
    for unit in sorted((folder / "again").glob("levels*"))[::2]:
        unit.unlink()
    call(*words, "--threads", 1, "-o", third, "--work", folder / "again")
    tensors = load_file(one)
    for other in (two, third):
        assert equal(tensors, load_file(other))
        with open_path(one) as a, open_path(other) as b:
            assert list(a.entries) == list(b.entries)
    call(*words, "--scaling", "none", "-f", "-o", third, "--work", folder / "again", code=BAD_INPUT)


@pytest.mark.parametrize(
    ("kind", "dtype"), [("llama", "bfloat16"), ("qwen2", "float32"), ("gpt2", "float16")]
)
def test_other_architectures_with_head_and_embedding(kind, dtype, folder):
    """Biases, tied and untied heads, transposed storage, rows of zeros, sizes that are no multiple of 8."""
    home, path = folder / kind, folder / f"{kind}.safetensors"
    make_model(kind, home, dtype=dtype)
    write_tokenizer(home)
    tensors = load_file(home / "model.safetensors")
    name = next(name for name in tensors if name.endswith(("up_proj.weight", "c_fc.weight")))
    tensors[name][0] = 0
    save_file(tensors, home / "model.safetensors", {"format": "pt"})
    call("stack-compress", home, *FAST, "--levels", 4, "--rank", 40, "--embedding", "-o", path)
    original, found = weights(home), weights(path)
    assert {n: (v.shape, v.dtype) for n, v in found.items()} == {
        n: (v.shape, v.dtype) for n, v in original.items()
    }
    report = call("info", path, "--blocks", "--against", home)
    coded = {row["name"] for row in report["errors"]}
    if kind == "llama":
        assert {"lm_head.weight", "model.embed_tokens.weight"} <= coded
    for name, value in original.items():
        if name not in coded:
            assert torch.equal(found[name], value)
    assert all(
        row["errors"][-1] < 0.5 * row["errors"][0] or row["errors"][-1] < 2e-2 for row in report["errors"]
    )


def sizes_of(model, seed=0):
    """Scales of the shape that measuring gives."""
    generator, found = torch.Generator().manual_seed(seed), {}
    for name, linear in model.linears.items():
        shape = model.entries[name].shape
        found[name] = torch.rand(shape[0] if linear.transposed else shape[1], generator=generator) + 0.5
    return found


@pytest.mark.parametrize("groups", [True, False])
def test_fused_scales_leave_the_function_as_it_is(groups, folder, monkeypatch):
    """The network of the fused norms and of W' = W / rows * inputs answers as the original does."""
    home = folder / f"fused-{groups}"
    monkeypatch.setitem(
        ARCHITECTURES, "qwen2", {**ARCHITECTURES["qwen2"], "num_key_value_heads": 2 if groups else 4}
    )
    make_model("qwen2", home, dtype="float32")
    write_tokenizer(home)
    tensors = load_file(home / "model.safetensors")
    for name in tensors:
        if name.endswith(".bias"):
            tensors[name] += torch.linspace(-1, 1, len(tensors[name]))
    save_file(tensors, home / "model.safetensors", {"format": "pt"})
    model = open_model(str(home))
    ids = torch.randint(0, 90, (2, 16), generator=torch.Generator().manual_seed(0))
    network = model.build(torch.float32)
    with torch.no_grad():
        before = network(ids).logits
    scales, changed = fused(model, sizes_of(model))
    state = network.state_dict()
    for name, tensor in changed.items():
        state[name].copy_(tensor)
    for name, scale in scales.items():
        state[name].copy_(state[name] / scale.rows[:, None] * scale.inputs)
    with torch.no_grad():
        after = network(ids).logits
    assert torch.allclose(before, after, atol=2e-4)
    shapes = [model.entries[f"model.layers.0.self_attn.{kind}_proj.weight"].shape for kind in "vo"]
    unscaled = bool((scales["model.layers.0.self_attn.o_proj.weight"].inputs == 1).all())
    assert unscaled == (shapes[0] != shapes[1])
    assert not bool(
        (scales["model.layers.0.mlp.up_proj.weight"].rows == 1).all()
    )  # the paper's row weighting


def test_by_default_every_input_has_its_scale_and_no_row_is_weighted():
    model = open_model("default:")
    sizes = sizes_of(model)
    for name, scale in beside(model, sizes, True).items():
        assert (scale.rows == 1).all()
        assert scale.inputs.log().mean() == pytest.approx(0, abs=1e-3)
        ratio = scale.inputs / sizes[name]
        assert torch.allclose(ratio, ratio[:1].expand_as(ratio), rtol=2e-3)
        values = torch.rand(len(scale.rows), len(scale.inputs))
        assert torch.allclose(scale.undo(values * scale.inputs), values, rtol=1e-3)


def test_the_paper_s_scale_is_the_mean_norm_over_a_window():
    model = open_model("default:")
    windows = torch.randint(0, 200, (3, 32), generator=torch.Generator().manual_seed(0))
    seen, path = [], "model.layers.1.mlp.down_proj"
    network = model.build(torch.float32)
    network.get_submodule(path).register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        network(windows)
    wanted = torch.stack([x.norm(dim=0) for x in seen[0]]).mean(0)
    assert torch.allclose(input_norms(model, {path}, windows)[path].float(), wanted, rtol=1e-4)


def test_the_paper_s_layout_stores_no_scales_and_is_the_same_model(folder):
    path = folder / "paper.safetensors"
    call("stack-compress", "default:", *FAST, "--paper", "--levels", 8, "-o", path, "--curve", 2)
    with open_path(path) as source:
        names = source.names()
        settings = source.report["settings"]
    assert settings["rank"] == 16
    assert settings["scaling"] == "official"
    assert not [name for name in names if name.endswith(".inputs")]
    norm = "model.layers.0.input_layernorm.weight"
    assert not torch.equal(weights(path)[norm], weights("default:")[norm])
    report = call("eval", path, "--tokens", 600, "--against", "default:")
    told = call("info", path)["curve"][-1][1]
    assert report["kl"]["mean"] < 0.2
    assert report["kl"]["mean"] == pytest.approx(told, rel=1.5)  # measured on other text


def test_scaling_by_the_inputs_loses_less(made, folder):
    path = folder / "none.safetensors"
    call("stack-compress", "default:", *FAST, "--levels", 6, "--scaling", "none", "-o", path)
    plain, scaled = (json.loads(json.dumps(call("info", p)["report"]["predicted_kl"])) for p in (path, made))
    assert scaled["base"] < plain["base"]
    assert scaled["all"] < plain["all"]


@pytest.mark.parametrize("sort", ["layer", "perplexity", "output-error"])
def test_every_order_holds_the_same_blocks(sort, folder):
    paths = []
    for order in ("fisher", sort):
        paths.append(folder / f"{order}.safetensors")
        call("stack-compress", "default:", *FAST, "--levels", 2, "--sort", order, "-f", "-o", paths[-1],
             "--work", folder / "orders")  # fmt: skip
    names = []
    for path in paths:
        with open_path(path) as source:
            names.append([name for name in source.names() if name.startswith(BLOCK_PREFIX)])
    assert sorted(names[0]) == sorted(names[1])
    assert names[0] != names[1]


def test_what_cannot_be_is_said(made, folder):
    words = ("stack-compress", "default:", "-o", folder / "x")
    assert "--rank" in call(*words, "--rank", 3, code=USAGE).what
    assert "--paper" in call(*words, "--paper", code=USAGE).what
    home = folder / "gpt2-paper"
    make_model("gpt2", home, dtype="float16")
    write_tokenizer(home)
    assert "gpt2" in call("stack-compress", home, *FAST, "--paper", "-o", folder / "x", code=USAGE).what
    with pytest.raises(BnError, match="planes"):
        Resident(made)
    plan = call("stack-compress", "default:", *FAST, "--levels", 6, "--dry-run", "-o", folder / "x")
    assert plan["writes_bytes"] == pytest.approx(made.stat().st_size, rel=0.2)
    assert not (folder / "x").exists()


def test_a_zero_matrix_is_a_level_of_nothing():
    levels = list(absolute_binary.decompose(torch.zeros(9, 10), 2, 3))
    assert len(levels) == 3
    assert all(not level.left.any() for level in levels)
