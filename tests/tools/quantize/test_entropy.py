"""quantize --code entropy: files of the size asked, the same bytes every time, and the loss they promise."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from bntools.core.artifact.reader import open_path
from bntools.core.errors import BnError
from bntools.core.model.open import open_model
from bntools.tools.quantize.budget import parse_budget

pytestmark = pytest.mark.slow
FAST = ("--calib-tokens", "8192", "-q")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("entropy")


@pytest.fixture(scope="module")
def made(run, folder):
    """Sizes of the embedded model, all made from one --work folder: {budget: path}."""
    paths = {}
    for budget in ("2", "3", "8", "1MB"):
        paths[budget] = folder / f"{budget}.safetensors"
        work = folder / ("bits" if budget != "1MB" else "bytes")
        words = ("--code", "entropy", "--budget", budget, "-o", paths[budget], "--work", work, *FAST)
        done = run("quantize", "default:", *words, SOURCE_DATE_EPOCH="0")
        assert done.returncode == 0, done.stderr
    return paths


def report_of(path: Path) -> dict:
    with open_path(path) as source:
        return source.report


def kl(run, path) -> float:
    done = run("eval", path, "--tokens", "4096")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["kl"]["mean"]


def test_as_many_tokens_calibrate_as_for_gptq(run):
    """Moments of a few thousand tokens cost more than they save."""
    tokens = []
    for words in (("--method", "gptq"), ("--code", "entropy", "--budget", "3")):
        done = run("quantize", "default:", *words, "--dry-run")
        tokens.append(json.loads(done.stdout)["calib_tokens"])
    assert tokens == [32768, 32768]


@pytest.fixture(scope="module")
def plain(run, made, folder):
    """Two bits, each layer coded on its own."""
    path = folder / "plain.safetensors"
    words = ("--code", "entropy", "--budget", 2, "--no-compensate", "-o", path, "--work", folder / "bits")
    done = run("quantize", "default:", *words, *FAST)
    assert done.returncode == 0, done.stderr
    return path


def test_making_up_for_what_was_lost_diverges_less(run, made, plain):
    assert made["2"].stat().st_size < 1.01 * plain.stat().st_size
    assert kl(run, made["2"]) < 0.9 * kl(run, plain)


@pytest.mark.parametrize("budget", ["2", "3"])
def test_the_bits_reported_are_the_bytes_on_disk(made, budget):
    with open_path(made[budget]) as source:
        size = sum(entry.nbytes for name, entry in source.entries.items() if name.startswith("entropy."))
        size += sum(entry.nbytes for name, entry in source.entries.items() if name.endswith(".stream"))
    model = open_model(str(made[budget]))
    weights = sum(model.entries[name].numel for name in model.linears)
    bits = report_of(made[budget])["bits_per_weight"]["linear"]
    assert bits == pytest.approx(8 * size / weights, rel=0.001)
    assert 0.99 * float(budget) <= bits <= float(budget)


def test_a_budget_in_bytes_is_kept_by_the_whole_file_and_nearly_used(made):
    assert 0.93e6 <= os.path.getsize(made["1MB"]) <= 1e6


def test_more_bits_diverge_less_and_many_bits_not_at_all(run, made):
    two, three, eight = (kl(run, made[budget]) for budget in ("2", "3", "8"))
    assert two > 1.5 * three > 0
    assert eight < 1e-3


def test_the_divergence_predicted_is_the_divergence_found(run, made):
    assert report_of(made["3"])["predicted_kl"] == pytest.approx(kl(run, made["3"]), rel=0.5)


def test_three_bits_beat_gptq_at_more_bits(run, made, folder):
    path = folder / "gptq.safetensors"
    done = run("quantize", "default:", "--method", "gptq", "--bits", "3", "-o", path, *FAST)
    assert done.returncode == 0, done.stderr
    assert report_of(path)["bits_per_weight"]["linear"] > 3
    assert kl(run, made["3"]) < 0.5 * kl(run, path)


@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_same_seed_gives_the_same_bytes_with_a_work_folder_or_without(run, made, folder, threads):
    path = folder / f"again{threads}.safetensors"
    words = ("--code", "entropy", "--budget", "3", "-o", path, "--threads", threads, *FAST)
    assert run("quantize", "default:", *words, SOURCE_DATE_EPOCH="0").returncode == 0
    with open_path(path) as ours, open_path(made["3"]) as theirs:
        assert ours.names() == theirs.names()
        assert all(ours.raw(name) == theirs.raw(name) for name in ours.names())


def test_a_work_folder_of_another_text_is_refused(run, made, folder):
    words = ("--code", "entropy", "--calib-tokens", "4096", "-o", folder / "no.safetensors")
    done = run("quantize", "default:", *words, "--work", folder / "bits")
    assert done.returncode == 3
    assert "calibration" in done.stderr
    assert not (folder / "no.safetensors").exists()


def test_the_embedding_is_coded_too_and_stays_tied(made):
    model = open_model(str(made["1MB"]))
    name = "model.embed_tokens.weight"
    assert name in model.packing
    built = model.build(torch.float32)
    assert built.get_input_embeddings().weight is built.get_output_embeddings().weight
    original = open_model("default:").tensor(name).float()
    assert float((model.tensor(name).float() - original).norm() / original.norm()) < 0.2


def test_the_exported_model_is_the_one_that_was_evaluated(run, made, folder):
    done = run("export", made["3"], "-o", folder / "dense/", "--threads", "1")
    assert done.returncode == 0, done.stderr
    model, dense = open_model(str(made["3"])), open_model(str(folder / "dense"))
    assert not dense.packing
    assert all(torch.equal(model.tensor(name), dense.tensor(name)) for name in model.entries)


def test_a_damaged_weight_is_found_and_named(run, made, folder):
    data = bytearray(made["3"].read_bytes())
    with open_path(made["3"]) as source:
        name = next(name for name in source.entries if name.endswith(".stream"))
        data[source.header.size + source.entries[name].start + 200] ^= 1
    broken = folder / "broken.safetensors"
    broken.write_bytes(data)
    done = run("eval", broken, "--against", "none", "--tokens", "64")
    assert done.returncode == 3
    assert name.removesuffix(".stream") in done.stderr


def test_missing_tables_are_named(made, folder):
    model = open_model(str(made["3"]))
    del model.store.entries["entropy.tables"]
    with pytest.raises(BnError, match=r"entropy\.tables"):
        model.tensor(next(iter(model.packing)))


@pytest.fixture(scope="module")
def distilled(run, made, folder):
    path = folder / "distilled.safetensors"
    words = (
        "--code",
        "entropy",
        "--budget",
        "2",
        "--no-compensate",
        "--distill",
        "48",
        "-o",
        path,
        "--work",
        folder / "bits",
        *FAST,
    )
    done = run("quantize", "default:", *words, SOURCE_DATE_EPOCH="0")
    assert done.returncode == 0, done.stderr
    return path


def test_distillation_diverges_less_in_the_same_budget(run, plain, distilled):
    report = report_of(distilled)
    assert report["distill"]["kl_end"] < report["distill"]["kl_start"]
    assert report["bits_per_weight"]["linear"] <= 2
    assert kl(run, distilled) < 0.985 * kl(run, plain)


def test_distillation_gives_the_same_bytes_on_one_thread(run, distilled, folder):
    path = folder / "distilled1.safetensors"
    words = (
        "--code",
        "entropy",
        "--budget",
        "2",
        "--no-compensate",
        "--distill",
        "48",
        "-o",
        path,
        "--work",
        folder / "bits",
        *FAST,
    )
    assert run("quantize", "default:", *words, "--threads", "1", SOURCE_DATE_EPOCH="0").returncode == 0
    with open_path(path) as ours, open_path(distilled) as theirs:
        assert all(ours.raw(name) == theirs.raw(name) for name in ours.names())


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--code", "entropy", "--scales", "2"), 2, "fixed codes"),
        (("--code", "entropy", "--calib", "none", "--calib-tokens", "0"), 2, "calibration"),
        (("--code", "entropy", "--budget", "sixty"), 2, "neither bits"),
        (("--code", "entropy", "--budget", "60"), 2, "unit"),
        (("--code", "entropy", "--budget", "100kB", *FAST), 2, "leaves"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(run, tmp_path, words, code, said):
    done = run("quantize", "default:", *words, "-o", tmp_path / "q.safetensors")
    assert done.returncode == code
    assert said in done.stderr
    assert "hint:" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2.6", (2.6, "bits")),
        ("60MB", (60e6, "bytes")),
        ("1 MiB", (1048576.0, "bytes")),
        ("500kb", (5e5, "bytes")),
    ],
)
def test_budgets_are_bits_without_a_unit_and_bytes_with_one(text, value):
    assert parse_budget(text) == value


def test_formats_that_cannot_hold_the_code_say_so(run, made, tmp_path):
    for layout in ("gptq", "compressed-tensors"):
        done = run("export", made["3"], "--to", layout, "-o", tmp_path / "x/")
        assert done.returncode == 2
        assert "entropy-coded" in done.stderr
