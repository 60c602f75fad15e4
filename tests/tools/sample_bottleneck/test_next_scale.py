"""bntools sample-bottleneck var:, and eval and info of samples, as a user meets them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bntools import cli
from bntools.core.diffusion.next_scale.model import load
from bntools.tools.sample_bottleneck.next_scale import ScaleSettings, equal_depth, plan, sample, scale_cost


@pytest.fixture
def inside(capfd):
    """Run in this process: exit code, standard output and standard error."""

    def call(*words):
        status = cli.run([*map(str, words)])
        return status, *capfd.readouterr()

    return call


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A folder of pictures: 20 digits under a schedule, with its comparison."""
    folder = tmp_path_factory.mktemp("samples") / "out"
    words = [
        "var:",
        "--cond",
        "all",
        "-n",
        "20",
        "--depth",
        "12@early,4@late",
        "--compare",
        "-o",
        f"{folder}/",
    ]
    assert cli.run(["sample-bottleneck", *words, "-q"]) == 0
    return folder


def test_costs_count_every_pair_that_a_cache_holds():
    model = load()
    full, half = (scale_cost(model, depths) for depths in ((12,) * 5, (12, 12, 12, 6, 6)))
    assert full.flops[:3] == half.flops[:3]
    assert [2 * h for h in half.flops[3:]] == list(full.flops[3:])
    assert full.cached == 12 * 2 * 64 * 88
    assert half.cached == 6 * 2 * 64 * (88 + 14)
    assert sum(full.flops) / sum(half.flops) > 1.4  # the floor needs it
    assert equal_depth(model, (4,) * 5) == 4
    assert scale_cost(model, (12,) * 5, 2).cached == 2 * full.cached


def test_a_folder_holds_pictures_the_artifact_and_the_report(drawn):
    assert len(list(drawn.glob("*.png"))) == 20
    tensors = load_file(drawn / "latents.safetensors")
    assert tensors["x0"].shape == (20, 1, 28, 28)
    assert tensors["label"].tolist() == [*range(10)] * 2
    assert set(tensors) == {"x0", "full", "few", "label"}
    report = json.loads((drawn / "report.json").read_text())
    assert [each["depth"] for each in report["scales"]] == [12, 12, 12, 4, 4]
    assert [row["tensor"] for row in report["compare"]] == ["full", "few", "x0"]
    assert report["compare"][0]["distance"] == 0
    assert report["totals"]["cache_bytes"] < report["baseline"]["cache_bytes"]
    assert report["speedup"]["flops"] == pytest.approx(1 / report["totals"]["cost"])


def test_full_depth_is_what_no_schedule_draws():
    plain = sample(ScaleSettings((3, 4), seed=5))
    compared = sample(ScaleSettings((3, 4), seed=5, depth="12@early,2@late", compare=True))
    assert np.array_equal(plain.tensors["x0"], compared.tensors["full"])
    guided = sample(ScaleSettings((3, 4), seed=5, guidance=3.0))
    assert not np.array_equal(plain.tensors["x0"], guided.tensors["x0"])


def test_a_plan_draws_nothing(inside):
    code, out, _ = inside(
        "sample-bottleneck", "var:", "--cond", 7, "--depth", "12@early,4@late", "--plan", "--json"
    )
    report = json.loads(out)
    assert code == 0
    assert report["totals"]["wall"] is None
    assert report == plan(ScaleSettings((7,) * 10, depth="12@early,4@late"))


def test_eval_scores_every_way_beside_full_sampling(inside, drawn):
    code, out, err = inside("eval", drawn / "latents.safetensors", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["kind"] == "samples-score"
    rows = {row["tensor"]: row for row in report["rows"]}
    assert rows["full"]["distance"] is None
    assert rows["x0"]["distance"]["mean"] >= 0
    assert rows["x0"]["frechet"] is None  # 20 samples are too few
    assert 0 <= rows["x0"]["accuracy"]["mean"] <= 1
    assert report["oneig"] is None


def test_eval_reads_what_others_models_saw(inside, drawn, tmp_path):
    (tmp_path / "ocr.jsonl").write_text('{"text": "SALE", "ocr": "sale"}\n')
    (tmp_path / "answers.jsonl").write_text('{"answers": {"1": "Yes", "2": "No"}}\n')
    save_file(
        {"x": np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)}, tmp_path / "f.safetensors"
    )
    words = [f"--set=ocr={tmp_path}/ocr.jsonl", f"--set=answers={tmp_path}/answers.jsonl", "--set=style=0.25",
             f"--set=features={tmp_path}/f.safetensors"]  # fmt: skip
    code, out, err = inside("eval", drawn / "latents.safetensors", "--json", *words)
    assert code == 0, err
    scores = json.loads(out)["oneig"]["scores"]
    assert (scores["alignment"], scores["text"], scores["reasoning"], scores["style"]) == (
        0.5,
        1.0,
        None,
        0.25,
    )
    assert 0 < scores["diversity"] < 2


def test_info_says_how_they_were_drawn(inside, drawn):
    code, out, _ = inside("info", drawn / "latents.safetensors", "--json")
    assert code == 0
    assert '"samples": 20' in out
    assert '"method": "depth"' in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["var:", "--depth", "13"], "not in 1..12"),
        (["var:", "--depth", "12@early"], "3 scales of 5"),
        (["var:", "--cond", "x"], "names no digits"),
        (["var:", "--stages", "1@1"], "--stages means nothing"),
        (["var:", "--cache", "fbc"], "--cache means nothing"),
        (["var:", "--prompt", "a fox"], "--prompt means nothing"),
        (["digits:", "--depth", "4"], "--depth is of the next-scale model"),
        (["no.safetensors", "--depth", "4"], "no.safetensors"),
    ],
)
def test_words_that_do_not_fit_are_refused(inside, words, says):
    code, _, err = inside("sample-bottleneck", *words, "--json")
    assert code in (2, 3)
    assert says in err


@pytest.mark.parametrize(
    "words", [["--set", "speed=1"], ["--set", "style=high"], ["--set", "ocr=nothing"], ["--set", "real_features=x"],
              ["--set", "gate_frechet=1"], ["--data", "nowhere"]]
)  # fmt: skip
def test_scores_that_cannot_be_had_are_refused(inside, drawn, words):
    code, _, err = inside("eval", drawn / "latents.safetensors", "--json", *words)
    assert code == 2
    assert "hint" in err
