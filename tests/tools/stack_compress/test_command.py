"""stack-compress as a user has it: one file, every prefix a model, whatever cuts it."""

from __future__ import annotations

import json
import os
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import make_model
from safetensors.torch import load_file, save_file
from support.stacked import call, equal, weights, write_tokenizer

from bntools.core.artifact import streams
from bntools.core.artifact.header import BLOCK_PREFIX
from bntools.core.artifact.reader import open_path
from bntools.core.blockwise.windows import text_windows
from bntools.core.errors import BAD_INPUT, USAGE
from bntools.core.model.open import open_model
from bntools.core.packing import stack
from bntools.core.resident.resize import Resident
from bntools.tools.stack_compress.command import command

FAST = ("--calib-tokens", 2048, "-q", "--curve", 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stack")


@pytest.fixture(scope="module")
def made(folder):
    """The embedded model as a stack, with its curve."""
    path = folder / "s.safetensors"
    call("stack-compress", "default:", "--calib-tokens", 4096, "--curve", 3, "-q", "-o", path)
    return path


@pytest.fixture(scope="module")
def base(made):
    with open_path(made) as source:
        return source.header.base_bytes


def sizes(made, base, count=6):
    whole = made.stat().st_size
    some = np.random.default_rng(0).integers(base, whole, count).tolist()
    return [base, *some, whole - 1, whole]


def test_a_cut_file_a_budget_and_a_truncated_file_are_the_same_model(made, base, folder):
    cut, short = folder / "cut.safetensors", folder / "short.safetensors"
    for size in sizes(made, base):
        cut.write_bytes(made.read_bytes()[:size])
        call("stack-compress", "--truncate", size, made, "-f", "-o", short)
        found = weights(made, size)
        assert equal(found, weights(cut))
        assert equal(found, weights(short))
        assert all(bool(torch.isfinite(value).all()) for value in found.values())
        assert short.stat().st_size <= size
        load_file(short)  # the stock library opens it
        with open_path(short) as source:
            assert source.nbytes == source.header.total
    assert [stage["tool"] for stage in open_model(str(short)).history] == ["stack-compress"] * 2


def test_a_truncated_file_can_be_cut_again(made, base, folder):
    twice, once = folder / "twice.safetensors", folder / "once.safetensors"
    whole = made.stat().st_size
    call("stack-compress", "--truncate", (base + whole) // 2, made, "-f", "-o", once)
    with open_path(once) as source:
        moved = base - source.header.base_bytes  # its header is shorter
    size = base + (whole - base) // 4
    call("stack-compress", "--truncate", size - moved, once, "-f", "-o", twice)
    assert equal(weights(twice), weights(made, size))


def test_the_whole_file_is_plain_safetensors_and_its_base_comes_first(made, base):
    with open_path(made) as source:
        assert set(load_file(made)) == set(source.header.entries)
        names = source.names()
        assert source.kind == "stack"
        first = next(index for index, name in enumerate(names) if name.startswith(BLOCK_PREFIX))
        assert all(name.startswith(BLOCK_PREFIX) for name in names[first:])
        assert base == source.header.size + source.entries[names[first]].start
        for entry in source.entries.values():
            assert entry.dtype == "U8" or entry.start % 2 == 0


def test_below_the_base_the_least_size_is_named(made, base, folder):
    cut = folder / "low.safetensors"
    cut.write_bytes(made.read_bytes()[: base - 1])
    for words in ((made, "--budget", base - 1), (cut,)):
        error = call("eval", *words, code=BAD_INPUT)
        assert f"{base:,} bytes" in error.what
    call("stack-compress", "--truncate", base - 1, made, "-o", folder / "no.safetensors", code=BAD_INPUT)
    assert not (folder / "no.safetensors").exists()
    for size in (9, base - 1):  # one that does not even hold the header
        for words in (
            ("eval", made, "--budget", size),
            ("stack-compress", "--truncate", size, made, "-fo", cut),
        ):
            assert call(*words, code=BAD_INPUT).hint
    call("info", made, "--budget", f"{base},{base - 1}", code=BAD_INPUT)


def test_a_budget_reads_no_byte_beyond_it(made, base, monkeypatch):
    budget, farthest = base + 50_000, 0

    def watch(name, length):
        real = getattr(os, name)

        def call(fd, what, position):
            nonlocal farthest
            farthest = max(farthest, position + length(what))
            return real(fd, what, position)

        monkeypatch.setattr(os, name, call)

    watch("preadv", lambda views: sum(map(len, views)))
    watch("pread", lambda count: count)
    model = open_model(str(made), budget)
    for name in model.entries:
        model.tensor(name)
    model.store.sha256()
    assert budget - 100 < farthest <= budget


def test_of_a_pipe_no_byte_beyond_the_budget_is_taken():
    read, write = os.pipe()
    os.write(write, bytes(5000))
    os.close(write)
    spooled = streams.spool(read, 3000)
    assert os.fstat(spooled).st_size == 3000
    assert len(os.read(read, 9000)) == 2000
    os.close(read)
    os.close(spooled)


@pytest.mark.slow
def test_a_prefix_on_standard_input_is_a_model(run, made, base, tmp_path):
    data = made.read_bytes()[: base + 99_999]
    words = ("eval", "--tokens", 600)
    piped = json.loads(run(*words, data=data, XDG_CACHE_HOME=str(tmp_path)).stdout)
    again = run(*words, "--budget", len(data), data=made.read_bytes(), XDG_CACHE_HOME=str(tmp_path))
    read = json.loads(again.stdout)
    assert piped["kl"] == read["kl"]
    assert piped["bytes"] == read["bytes"] == len(data)


def test_more_bytes_never_hurt_beyond_noise_at_fifty_random_budgets(made, base):
    """Of neighbouring budgets the larger one diverges less, or more by no more than three standard errors."""
    rng = np.random.default_rng(0)
    budgets = sorted({base, *rng.integers(base, made.stat().st_size, 50).tolist()})
    assert len(budgets) >= 50
    ids = text_windows(open_model("default:"), "default", 1024, 256)
    with torch.no_grad():
        truth = open_model("default:").build(torch.float32)(ids).logits.log_softmax(-1)
        held, lost = Resident(made, budgets[0]), []
        for budget in budgets:
            held.resize(budget)
            ours = held.network(ids).logits.log_softmax(-1)
            lost.append((truth.exp() * (truth - ours)).sum(-1).flatten().double())
    for at, (before, after) in enumerate(pairwise(lost)):
        worse = after - before
        assert worse.mean() <= 3 * worse.std() / len(worse) ** 0.5, budgets[at : at + 2]
    assert lost[0].mean() > 50 * lost[-1].mean()


@pytest.mark.slow
def test_more_bytes_are_a_better_model(made, folder, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    picture = folder / "curve.svg"
    report = call("eval", made, "--curve", 9, "--tokens", 2000, "--plot", picture)
    kl = [point["kl"]["mean"] for point in report["points"]]
    assert all(after < before for before, after in pairwise(kl))
    assert kl[0] > 50 * kl[-1]
    assert [point["bytes"] for point in report["points"]][-1] == made.stat().st_size
    assert picture.read_text().lstrip().startswith("<?xml")
    # the curve in the file was measured on other text: the same within a factor
    told = call("info", made)["curve"]
    assert [size for size, _ in told][-1] == made.stat().st_size
    for (size, expected), at in zip(told, (0, 4, 8), strict=True):
        assert report["points"][at]["bytes"] == pytest.approx(size, abs=2)
        assert kl[at] == pytest.approx(expected, rel=0.7)


def test_what_is_expected_of_a_size_comes_from_the_curve(made, base):
    whole = made.stat().st_size
    found = call("info", made, "--budget", f"{base},{(base + whole) // 2}B,{whole}")["budgets"]
    told = call("info", made)["curve"]
    assert [one["bytes"] for one in found] == [base, (base + whole) // 2, whole]
    assert [one["kl"] for one in found] == pytest.approx([kl for _, kl in told], rel=1e-3)
    bits = [one["bits_per_weight"]["linear"] for one in found]
    assert bits[2] - bits[0] == pytest.approx(4, abs=0.01)


def test_blocks_are_listed_as_they_lie_and_errors_fall_plane_by_plane(made, base):
    report = call("info", made, "--blocks", "--against", "default:")
    blocks, position, above = report["blocks"], base, {}
    for block in blocks:
        assert block["offset"] == position
        position += block["bytes"]
        assert block["plane"] == above.get(block["name"], 0) + 1
        above[block["name"]] = block["plane"]
    assert position == made.stat().st_size
    assert set(above.values()) == {4}
    for row in report["errors"]:
        assert len(row["errors"]) == 5
        assert all(after < before for before, after in pairwise(row["errors"])), row
        assert row["errors"][4] < 0.2 * row["errors"][0]


def test_a_prefix_is_exported_dense(made, base, folder):
    call("export", made, "--budget", base + 100_000, "-o", folder / "dense")
    assert equal(weights(folder / "dense"), weights(made, base + 100_000))


def test_the_same_bytes_whatever_the_threads_and_after_a_break(folder):
    words = ("stack-compress", "default:", *FAST, "--planes", 2)
    one, two, third = (folder / f"{name}.safetensors" for name in ("one", "two", "third"))
    call(*words, "--threads", 1, "-o", one, "--work", folder / "work")
    call(*words, "--threads", 2, "-o", two)
    for unit in sorted((folder / "work").glob("planes*"))[::2]:
        unit.unlink()  # as if it had been killed between matrices
    call(*words, "--threads", 1, "-o", third, "--work", folder / "work")
    tensors = load_file(one)
    for other in (two, third):
        assert equal(tensors, load_file(other))
        with open_path(one) as a, open_path(other) as b:
            assert list(a.entries) == list(b.entries)
    # another order needs no new sweep; another base does, and is refused
    call(*words, "--sort", "layer", "-o", folder / "layer.safetensors", "--work", folder / "work")
    call(*words, "--base", 3, "-f", "-o", third, "--work", folder / "work", code=BAD_INPUT)


@pytest.mark.parametrize("sort", ["layer", "output-error", "perplexity"])
def test_every_order_holds_the_same_blocks(sort, folder):
    paths = []
    for order in ("fisher", sort):
        paths.append(folder / f"{order}-order.safetensors")
        call("stack-compress", "default:", *FAST, "--planes", 1, "--no-embedding", "--sort", order, "-f", "-o",
             paths[-1], "--work", folder / "orders")  # fmt: skip
    names = []
    for path in paths:
        with open_path(path) as source:
            names.append(source.names())
    assert sorted(names[0]) == sorted(names[1])
    assert names[0] != names[1]
    if sort == "layer":
        blocks = [name for name in names[1] if name.startswith(BLOCK_PREFIX)]
        assert blocks == sorted(
            blocks, key=lambda name: list(open_model("default:").entries).index(name.split("/")[1])
        )


@pytest.mark.parametrize(
    ("kind", "dtype"), [("llama", "bfloat16"), ("qwen2", "float32"), ("gpt2", "float16")]
)
def test_other_architectures(kind, dtype, folder):
    """A head of its own, biases, weights stored transposed."""
    home, path = folder / kind, folder / f"{kind}.safetensors"
    make_model(kind, home, dtype=dtype)
    text = folder / "text.txt"
    text.write_text("no tokenizer here")
    write_tokenizer(home)
    call("stack-compress", home, *FAST, "--planes", 3, "-o", path)
    original, report = weights(home), call("info", path, "--blocks", "--against", home)
    assert report["weights"] == sum(value.numel() for value in original.values())
    found = weights(path)
    assert {name: (v.shape, v.dtype) for name, v in found.items()} == {
        n: (v.shape, v.dtype) for n, v in original.items()
    }
    coded = {row["name"] for row in report["errors"]}
    assert len(coded) > 8
    if kind == "llama":
        assert {"lm_head.weight", "model.embed_tokens.weight"} <= coded
    for name, value in original.items():
        if name not in coded:
            assert torch.equal(found[name], value)
    for row in report["errors"]:
        assert row["errors"][-1] < 0.3 * row["errors"][0]


def test_a_model_whose_norms_have_odd_sizes_keeps_every_tensor_aligned(folder):
    home = folder / "mixed"
    make_model("llama", home, dtype="float16")
    write_tokenizer(home)
    tensors = load_file(home / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].float()
    save_file(
        {"extra": torch.zeros(3, dtype=torch.uint8), **tensors}, home / "model.safetensors", {"format": "pt"}
    )
    path = folder / "mixed.safetensors"
    call("stack-compress", home, *FAST, "--planes", 1, "-o", path)
    with open_path(path) as source:
        for entry in source.entries.values():
            assert entry.start % (entry.nbytes // max(entry.numel, 1)) == 0


def test_what_cannot_be_is_said(made, folder):
    assert "one file" in call("stack-compress", "-o", f"{folder}/d/", code=USAGE).what
    for words in (("eval", "default:"), ("export", "default:", "-o", folder / "x")):
        assert "stacks" in call(*words, "--budget", "90MB", code=USAGE).what
    assert (
        "stacks"
        in call("stack-compress", "--truncate", "9MB", "default:", "-o", folder / "x", code=USAGE).what
    )
    assert "stack" in call("eval", "default:", "--curve", 3, code=USAGE).what
    assert "size" in call("eval", made, "--budget", "much", code=USAGE).what
    assert "--plot" in call("eval", made, "--plot", "x.svg", code=USAGE).what
    assert "stacks" in call("info", "default:", "--blocks", code=USAGE).what
    assert "--blocks" in call("info", made, "--against", "default:", code=USAGE).what
    assert "entropy-coded" in call("export", made, "--to", "gptq", "-o", folder / "x", code=USAGE).what
    assert not (folder / "x").exists()


def test_the_plan_writes_nothing(made, folder):
    plan = call("stack-compress", "default:", "--dry-run", "-o", folder / "plan.safetensors")
    assert plan["writes_bytes"] == pytest.approx(made.stat().st_size, rel=0.15)
    assert not (folder / "plan.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [("--no-compensate", "--planes", 1), ("--codec", "bitstack", "--levels", 2, "--paper", "--rank", 3)],
)
def test_parts_made_apart_are_gathered_to_the_bytes_of_one_run(words, folder):
    words = ("stack-compress", "default:", *FAST, *words)
    whole, joined = folder / "whole.safetensors", folder / "joined.safetensors"
    parts = folder / f"parts of {words[-1]}"
    parts.mkdir()
    call(*words, "-f", "-o", whole)
    for index in (2, 0):
        call(*words, "--shard", f"{index}/3", "-o", parts / f"{index}.safetensors")
    error = call(*words, "--gather", parts, "-f", "-o", joined, code=BAD_INPUT)
    assert "1/3" in error.what
    call(*words, "--shard", "1/3", "-o", parts / "1.safetensors")
    call(*words, "--gather", parts, "-f", "-o", joined)
    with open_path(whole) as a, open_path(joined) as b:
        assert list(a.entries) == list(b.entries)
        assert a.report == b.report
    assert equal(load_file(whole), load_file(joined))
    other = ("--rank", 2) if "bitstack" in words else ("--planes", 2)
    assert "settings" in call(*words, *other, "--gather", parts, "-f", "-o", joined, code=BAD_INPUT).what


def test_as_many_planes_can_be_asked_for_as_can_be_read():
    option = next(one for one in command.params if one.name == "planes")
    assert option.type.max == stack.MOST_PLANES  # written twice: help must not cost what reading does
