"""The command lines of sample-bottleneck, right and wrong."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.diffusion import condition_for, save_stable_diffusion, save_transformer

from bntools.core.artifact.reader import open_path
from bntools.core.datasets.samples import read_samples

FAST = ("--threads", 1, "-q")


@pytest.fixture
def gaussian(tmp_path):
    path = tmp_path / "spec.json"
    path.write_text(json.dumps({"size": [8, 8], "beta": 2, "variance": 0.25, "mean": 0.1}))
    return f"gaussian:{path}"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A tiny random pipeline of Stable Diffusion 3 and encoded prompts for it."""
    folder = tmp_path_factory.mktemp("sd3")
    save_stable_diffusion(folder / "sd3")
    condition = condition_for("SD3Transformer2DModel", 2)
    negative = {f"negative_{name}": value * 0 for name, value in condition.items()}
    save_file({k: v.numpy() for k, v in {**condition, **negative}.items()}, folder / "cond.safetensors")
    return folder


def refused(done, code, *words):
    assert done.returncode == code, done.stderr
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_a_gaussian_is_sampled_to_a_report_and_the_report_is_exact(run, gaussian):
    done = run("sample-bottleneck", gaussian, "--stages", "40@1,40@0.5,40@1", "--solver", "heun", "--hf", "wiener",
               "-n", 200, "--json", *FAST)  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["kind"] == "sample-bottleneck"
    assert report["exact"]["kl"] < 5e-5
    assert [each["healthy"] for each in report["transitions"]] == [True, True]
    assert report["bounds"][1] == 0.95
    assert report["totals"]["nfe"] == 80 + 80 + 79


def test_a_pipe_gets_an_artifact_with_the_comparison(run, gaussian, tmp_path):
    out = tmp_path / "s.safetensors"
    picture = tmp_path / "grid.png"
    done = run("sample-bottleneck", gaussian, "-n", 6, "--compare", "--plot", picture, "-o", out, *FAST)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kind"] == "samples"
    with open_path(out) as file:
        assert file.kind == "samples"
        samples = read_samples(file)
    assert set(samples.x) == {"x0", "full", "few"}
    assert [row["name"] for row in samples.rows] == ["full", "full, equal cost", "spectral"]
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert samples.rows[1]["cost"] >= samples.rows[2]["cost"], "the doubt goes to the baseline"


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(run, gaussian, tmp_path):
    def draw(name, seed, batch):
        done = run(
            "sample-bottleneck",
            gaussian,
            "-n",
            5,
            "--seed",
            seed,
            "--batch",
            batch,
            "-o",
            tmp_path / name,
            *FAST,
        )
        assert done.returncode == 0, done.stderr
        return load_file(tmp_path / name)["x0"]

    first = draw("a.safetensors", 1, 5)
    assert np.array_equal(first, draw("b.safetensors", 1, 5))
    assert np.allclose(first, draw("c.safetensors", 1, 2), atol=1e-6)
    assert not np.allclose(first, draw("d.safetensors", 2, 5), atol=0.1)


def test_noise_can_be_brought_along(run, gaussian, tmp_path):
    noise = np.random.default_rng(0).standard_normal((3, 1, 8, 8)).astype(np.float32)
    save_file({"noise": noise}, tmp_path / "noise.safetensors")
    done = run("sample-bottleneck", gaussian, "-n", 3, "--method", "full", "--latents", tmp_path / "noise.safetensors",
               "-o", tmp_path / "x.safetensors", *FAST)  # fmt: skip
    assert done.returncode == 0, done.stderr
    refused(run("sample-bottleneck", gaussian, "-n", 4, "--latents", tmp_path / "noise.safetensors", "--json", *FAST),
            3, "noise is [3, 1, 8, 8]")  # fmt: skip


def test_a_folder_gets_pictures_latents_and_a_report(run, pipeline, tmp_path):
    done = run("sample-bottleneck", pipeline / "sd3", "--cond", pipeline / "cond.safetensors", "--size", 64,
               "--stages", "1@1,2@0.5,1@1", "--guidance", 2, "--compare", "-o", f"{tmp_path}/out/", *FAST)  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["0000.png", "0001.png", "latents.safetensors", "report.json"]
    png = (tmp_path / "out" / "0000.png").read_bytes()
    assert struct.unpack(">II", png[16:24]) == (64, 64)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["class"] == "SD3Transformer2DModel"
    assert [stage["size"] for stage in report["stages"]] == [[8, 8], [4, 4], [8, 8]]
    assert load_file(tmp_path / "out" / "latents.safetensors")["x0"].shape == (2, 4, 8, 8)


def test_a_plan_loads_no_weights(run, pipeline, tmp_path):
    folder = tmp_path / "flux"
    save_transformer("FluxTransformer2DModel", folder)
    for path in folder.glob("*.safetensors"):
        path.unlink()
    done = run("sample-bottleneck", folder, "--size", 256, "--plan", *FAST)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert [row["tokens"] for row in plan["stages"]] == [256, 64, 256]
    assert plan["full"]["nfe"] == 28
    assert plan["speedup"]["flops"] > 1
    dry = run("sample-bottleneck", pipeline / "sd3", "--dry-run", *FAST)
    assert json.loads(dry.stdout)["kind"] == "plan"


def test_the_paper_is_a_preset_with_its_source(run, gaussian):
    done = run(
        "sample-bottleneck", gaussian, "--method", "bottleneck", "--preset", "flux-paper", "--json", *FAST
    )
    report = json.loads(done.stdout)
    assert "re-implementation" in report["preset"]["source"]
    assert [stage["nfe"] for stage in report["stages"]] == [4, 13, 8]


def test_a_wanted_speed_up_is_reached(run, gaussian):
    done = run("sample-bottleneck", gaussian, "--target-speedup", 2.5, "--steps", 16, "--plan", *FAST)
    assert json.loads(done.stdout)["speedup"]["flops"] >= 2.5


def test_the_digits_are_drawn_at_three_resolutions(run, tmp_path):
    done = run("sample-bottleneck", "--cond", "3,8", "-n", 2, "--stages", "1@1,2@0.5,1@1", "--compare", "--steps", 4,
               "-o", f"{tmp_path}/out/", "--gate", *FAST)  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = load_file(tmp_path / "out" / "latents.safetensors")
    assert found["label"].tolist() == [3, 8]
    assert found["x0"].shape == (2, 1, 32, 32)


def test_a_stage_below_the_trained_sizes_is_warned_of(run):
    done = run("sample-bottleneck", "--plan", "--stages", "2@0.25,2@1", "--threads", 1)
    assert "below 16" in done.stderr
    assert json.loads(done.stdout)["warnings"][0]["name"] == "below-training"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("no-such-folder",), 2, "no model at no-such-folder"),
        (("--prompt", "a fox"), 2, "--prompt means nothing to the embedded model"),
        (("--cond", "11"), 2, "names no digits"),
        (("--stages", "3@0.5"), 2, "does not end at full resolution"),
        (("--stages", "2@0.3,2@1"), 2, "no multiple of the patch"),
        (("--sigmas", "1:.5"), 2, "not 4"),
        (("--preset", "flux-paper"), 2, "of --method bottleneck"),
        (("--cache", "tea"), 2, "is no cache"),
        (("--target-speedup", "40"), 2, "leaves"),
        (("--plot", "x.bmp"), 2, "no picture format"),
        (("gaussian:none.json",), 2, "cannot open"),
        (("--plan", "--machine", "abacus"), 2, "no device abacus"),
    ],
)
def test_wrong_words_are_named(run, words, code, message):
    refused(run("sample-bottleneck", *words, "--json", *FAST), code, message)


def test_bad_files_are_named(run, pipeline, tmp_path):
    spec = tmp_path / "s.json"
    spec.write_text('{"size": [8, 8], "colour": 3}')
    refused(run("sample-bottleneck", f"gaussian:{spec}", "--json", *FAST), 3, "unknown colour")
    spec.write_text('{"size": [8], "beta": 2}')
    refused(run("sample-bottleneck", f"gaussian:{spec}", "--json", *FAST), 3, "size [8]")
    other = tmp_path / "unet"
    other.mkdir()
    (other / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    refused(
        run("sample-bottleneck", other, "--prompt", "x", "--json", *FAST),
        3,
        "no adapter for UNet2DConditionModel",
    )
    scheduler = json.loads((pipeline / "sd3" / "scheduler" / "scheduler_config.json").read_text())
    folder = tmp_path / "wrong"
    for part in ("transformer", "scheduler"):
        (folder / part).mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "transformer" / "config.json").write_text(
        (pipeline / "sd3" / "transformer" / "config.json").read_text()
    )
    (folder / "scheduler" / "scheduler_config.json").write_text(
        json.dumps({**scheduler, "prediction_type": "epsilon"})
    )
    refused(run("sample-bottleneck", folder, "--plan", *FAST), 3, "prediction type epsilon")
    refused(run("sample-bottleneck", pipeline / "sd3", "--json", *FAST), 2, "prompts or --cond")
    refused(run("sample-bottleneck", pipeline / "sd3", "--cond", pipeline / "cond.safetensors", "--size", 100, "--json",
                *FAST), 2, "no multiple of 8")  # fmt: skip


def test_without_the_library_the_extra_is_named(run, tmp_path):
    (tmp_path / "diffusers.py").write_text("raise ImportError('no diffusers')")
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    refused(
        run("sample-bottleneck", "--json", *FAST, PYTHONPATH=path),
        5,
        "diffusers is not installed",
        "bntools[diffusion]",
    )


def test_numbers_that_are_not_finite_name_the_step(run, pipeline, tmp_path):
    condition = {k: v.numpy() for k, v in condition_for("SD3Transformer2DModel", 1).items()}
    condition["prompt_embeds"][0, 0, 0] = np.nan
    save_file(condition, tmp_path / "nan.safetensors")
    done = run(
        "sample-bottleneck",
        pipeline / "sd3",
        "--cond",
        tmp_path / "nan.safetensors",
        "--size",
        64,
        "--json",
        *FAST,
    )
    refused(done, 3, "after step 1 of stage 1")


def test_the_example_runs_as_it_is(tmp_path):
    script = tmp_path / "bntools"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m bntools "$@"\n')
    script.chmod(0o755)
    example = Path(__file__).resolve().parents[3] / "examples" / "three_resolutions.sh"
    done = subprocess.run(
        ["sh", str(example), str(tmp_path)], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL,
        env={**os.environ, "BNTOOLS": str(script)},
    )  # fmt: skip
    kinds = [json.loads(line)["kind"] for line in done.stdout.splitlines()]
    assert kinds == ["plan", "samples", "sample-bottleneck"]
    assert (tmp_path / "grid.png").exists()


@pytest.mark.slow
def test_the_embedded_model_is_trained_by_its_example(tmp_path):
    """train_flow_model.py, for a moment: the files that ship, loss below that of no model, which is about 2."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 64), ("t10k", 16)):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        head = struct.pack(">IIII", 0x803, count, 28, 28)
        (tmp_path / f"{split}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        labels = np.arange(count, dtype=np.uint8) % 10
        (tmp_path / f"{split}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 0x801, count) + labels.tobytes()
        )
    example = Path(__file__).resolve().parents[3] / "examples" / "train_flow_model.py"
    subprocess.run(
        [sys.executable, str(example), str(tmp_path), str(tmp_path / "m"), "--minutes", "0.05"], check=True
    )
    assert {"config.json", "flow.safetensors", "log.json", "spectrum.safetensors"} == {
        path.name for path in (tmp_path / "m").iterdir()
    }
