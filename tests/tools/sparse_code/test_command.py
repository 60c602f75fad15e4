"""The command lines of sparse-code, sparse-encode, sparse-decode and splat, right and wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bntools.core.datasets.activations import open_activations, write_activations

SMALL = ("--latents", 32, "--k", 4, "--pursuit", 12, "--batch", 64, "--tokens", 3000, "--threads", 1)


@pytest.fixture(scope="module")
def places(tmp_path_factory, run):
    """Rows, a dictionary of them, and codes."""
    folder = tmp_path_factory.mktemp("sparse")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 4)).astype(np.float32) @ rng.standard_normal((4, 12)).astype(np.float32)
    x += rng.standard_normal(x.shape).astype(np.float32) * np.float32(0.1)
    write_activations(
        f"{folder}/x.safetensors",
        x,
        {"label": (x[:, 0] > 0).astype(int), "names": [f"w{i}" for i in range(2000)]},
    )
    done = run("sparse-code", folder / "x.safetensors", *SMALL, "-o", folder / "sae.safetensors")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kind"] == "sae"
    assert "random directions" in done.stderr
    done = run(
        "sparse-encode",
        folder / "sae.safetensors",
        folder / "x.safetensors",
        "-o",
        folder / "codes.safetensors",
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_codes_decode_to_the_rows_but_for_what_the_report_says(run, places, tmp_path):
    done = run(
        "sparse-decode",
        places / "sae.safetensors",
        places / "codes.safetensors",
        "--store",
        "float32",
        "-o",
        tmp_path / "y",
    )
    assert done.returncode == 0, done.stderr
    with open_activations(f"{tmp_path}/y") as back, open_activations(str(places / "x.safetensors")) as rows:
        y, x = back.load()[0], rows.load()[0]
        assert np.array_equal(back.column("names"), rows.column("names"))
    assert np.square(y - x).sum() / np.square(x - x.mean(0)).sum() < 0.3


def test_the_same_command_gives_the_same_bytes(run, places, tmp_path):
    for name in ("a", "b"):
        done = run(
            "sparse-code",
            places / "x.safetensors",
            *SMALL,
            "-o",
            tmp_path / name,
            "-q",
            SOURCE_DATE_EPOCH="0",
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    one, other = load_file(tmp_path / "a"), load_file(tmp_path / "b")
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_pipe_from_rows_to_scores(run, places):
    data = (places / "x.safetensors").read_bytes()
    trained = run("sparse-code", *SMALL, data=data)
    assert trained.returncode == 0, trained.stderr
    done = run("eval", "--data", places / "x.safetensors", "--set", "rows=500", data=trained.stdout)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["kind"] == "sparse-code-scores"
    assert report["pursuit"]["fvu"]["value"] < report["baseline"]["random"]["fvu"]
    assert report["probe"]["codes"]["all"] > report["probe"]["largest_class"]


def test_shards_of_codes_are_the_codes(run, tmp_path, places):
    rng = np.random.default_rng(1)
    write_activations(f"{tmp_path}/x", rng.standard_normal((9000, 12)).astype(np.float32))
    parts = []
    for extra in ([], ["--shard", "0/2"], ["--shard", "1/2"]):
        done = run("sparse-encode", places / "sae.safetensors", tmp_path / "x", *extra, data=None)
        assert done.returncode == 0, done.stderr
        (tmp_path / "c").write_bytes(done.stdout)
        parts.append(load_file(tmp_path / "c"))
    for name in ("index", "value"):
        assert np.array_equal(parts[0][name], np.concatenate([part[name] for part in parts[1:]]))


def test_names_are_those_of_the_rows_that_point_the_way(run, places, tmp_path):
    D = load_file(places / "sae.safetensors")["dec.weight"]
    words = np.concatenate([D, -D])
    write_activations(f"{tmp_path}/v", words, {"names": [f"word{i}" for i in range(64)]}, dtype="float32")
    done = run("sparse-code", places / "sae.safetensors", "--name", tmp_path / "v")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert all(e["words"][0] == f"word{e['latent']}" for e in report["latents"])
    assert report["named"] == 32
    write_activations(f"{tmp_path}/w", words[:, :5], {"names": ["a"] * 64})
    assert run("sparse-code", places / "sae.safetensors", "--name", tmp_path / "w").returncode == 3


def test_several_k_need_a_folder_and_fill_it(run, places, tmp_path):
    words = ("sparse-code", places / "x.safetensors", *SMALL, "--k", "2,4", "-q")
    assert run(*words, "-o", tmp_path / "one").returncode == 2
    done = run(*words, "-o", f"{tmp_path}/many/")
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "many").iterdir()) == [
        "topk-k2.safetensors",
        "topk-k4.safetensors",
    ]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("sparse-code", "X", "--k", "0"), 2, "positive"),
        (("sparse-code", "X", "--k", "32", "--latents", "32"), 2, "does not fit 32 latents"),
        (("sparse-code", "X", "--k", "8", "--pursuit", "4"), 2, "fewer than --k"),
        (("sparse-code", "absent/"), 2, "cannot open"),
        (("sparse-code", "C"), 3, "of kind 'codes'"),
        (("sparse-code", "X", "--name", "X"), 3, "not a sparse dictionary"),
        (("sparse-encode", "S", "X", "--budget", "fvu=2"), 2, "fvu=F"),
        (("sparse-encode", "S", "X", "--pursuit", "0", "--k", "3"), 2, "for pursuit"),
        (("sparse-encode", "S", "X", "--k", "40"), 2, "32 latents"),
        (("sparse-encode", "X", "X"), 3, "not a sparse dictionary"),
        (("sparse-encode", "-", "-"), 2, "both from standard input"),
        (("sparse-decode", "S", "X"), 3, "not sparse codes"),
        (("sparse-decode", "S", "C", "--set", "32=+1"), 2, "32 latents"),
        (("sparse-decode", "S", "C", "--set", "a=1"), 2, "not J=A"),
        (("eval", "S"), 2, "nothing to score on"),
        (("eval", "S", "--data", "X", "--set", "nonsense=1"), 2, "no setting"),
        (("splat", "X", "--codes", "S", "--query", "X"), 3, "holds no mean"),
    ],
)  # fmt: skip
def test_wrong_command_lines_say_what_is_wrong(run, places, words, code, message):
    import re

    names = {
        "X": places / "x.safetensors",
        "S": places / "sae.safetensors",
        "C": places / "codes.safetensors",
    }
    done = run(*[names.get(word, word) for word in words])
    assert done.returncode == code, done.stderr
    assert re.search(message, done.stderr)
    assert done.stdout == b""


@pytest.mark.parametrize("tool", ["sparse-code", "sparse-encode", "sparse-decode"])
def test_dry_runs_write_nothing(run, places, tool, tmp_path):
    first = [] if tool == "sparse-code" else [places / "sae.safetensors"]
    data = places / ("codes.safetensors" if tool == "sparse-decode" else "x.safetensors")
    done = run(tool, *first, data, "--dry-run", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kind"] == "plan"
    assert not (tmp_path / "out").exists()


def test_an_object_is_found_where_it_is_drawn(run, places, tmp_path):
    D = load_file(places / "sae.safetensors")["dec.weight"]
    rng = np.random.default_rng(0)
    n = 200
    mean = rng.uniform(0, 64, (n, 2)).astype(np.float32)
    near = np.linalg.norm(mean - [48, 16], axis=1) < 12
    scene = {
        "mean": mean, "conic": np.tile(np.array([[0.05, 0, 0.05]], np.float32), (n, 1)),
        "opacity": np.full(n, 0.5, np.float32), "depth": rng.random(n).astype(np.float32),
        "index": np.where(near[:, None], 3, 9).astype(np.int32), "value": np.ones((n, 1), np.float32),
        "size": np.array([64, 64], np.int32),
    }  # fmt: skip
    save_file(scene, tmp_path / "scene")
    write_activations(f"{tmp_path}/q", D[3:4], {"names": ["object"]}, dtype="float32")
    picture = tmp_path / "map.png"
    done = run(
        "splat", tmp_path / "scene", "--codes", places / "sae.safetensors", "--query", tmp_path / "q",
        "--plot", picture, "-o", tmp_path / "map",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    x, y = report["queries"][0]["at"]
    assert (x - 48) ** 2 + (y - 16) ** 2 < 16**2
    found = load_file(tmp_path / "map")["map"]
    assert found.shape == (1, 64, 64)
    assert found[0, 16, 48] > 0.99
    assert picture.stat().st_size > 1000
