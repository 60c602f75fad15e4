"""bntools vec-index, eval and info of its artifact, as a user meets them."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bntools import cli

PAGE = Path(__file__).resolve().parents[3] / "man" / "man1" / "bntools-vec-index.1"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """600 vectors, 200 learn queries, 40 test queries, and an index of them."""
    folder = tmp_path_factory.mktemp("vectors")
    random = np.random.default_rng(0)
    scale = np.geomspace(3, 0.2, 32)
    for name, count, size in (("base", 600, scale), ("learn", 200, 1 / scale), ("test", 40, 1 / scale)):
        np.save(folder / f"{name}.npy", (random.normal(size=(count, 32)) * size).astype(np.float32))
    words = [
        "vec-index",
        folder / "base.npy",
        "--queries",
        folder / "learn.npy",
        "--bytes",
        "20",
        "--second",
        "lvq8",
    ]
    assert cli.run([*map(str, words), "-o", str(folder / "base.vec"), "-q"]) == 0
    return folder


@pytest.fixture
def inside(capfd):
    """Run in this process: exit code, standard output and standard error."""

    def call(*words):
        status = cli.run([*map(str, words)])
        return status, *capfd.readouterr()

    return call


def test_hits_are_one_object_a_query_with_the_true_best_among_them(inside, files):
    code, out, err = inside("vec-index", files / "base.vec", "--search", files / "test.npy", "-k", 5)
    assert code == 0, err
    hits = [json.loads(line) for line in out.splitlines()]
    assert [h["query"] for h in hits] == list(range(40))
    assert all(len(h["ids"]) == len(h["scores"]) == 5 and h["exact"] is False for h in hits)
    truth = (np.load(files / "test.npy") @ np.load(files / "base.npy").T).argmax(1)
    assert np.mean([t in h["ids"] for t, h in zip(truth, hits, strict=True)]) > 0.95
    assert all(h["scores"] == sorted(h["scores"], reverse=True) for h in hits)


def test_eval_reports_recall_beside_baselines_with_documented_keys(inside, files):
    words = ("eval", files / "base.vec", "--data", files / "test.npy", "--data", files / "base.npy")
    code, out, err = inside(*words, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["kind"] == "vector-index-score"
    assert report["recall"]["mean"] > 0.9
    assert [b["name"] for b in report["baselines"]][:4] == [
        "first coordinates, float16", "principal axes, float16", "8 bits a coordinate", "PQ"
    ]  # fmt: skip
    assert report["baselines"][3]["bytes_per_vector"] == 20
    page = PAGE.read_text()
    assert all(re.search(rf"\b{key}\b", page) for key in report), report.keys()
    assert inside(*words, "--set", "gate_recall=0.9999", "--set", "rerank=1")[0] == 4
    assert inside(*words, "--set", "nonsense=1")[0] == 2
    assert inside(*words[:4])[0] == 2


def test_rabitq_stands_beside_an_index_where_faiss_is_installed(inside, files):
    pytest.importorskip("faiss", reason="the extra `index` is not installed")
    words = ("eval", files / "base.vec", "--data", files / "test.npy", "--data", files / "base.npy")
    last = json.loads(inside(*words, "--json")[1])["baselines"][-1]
    assert last["name"] == "RaBitQ, 3 bits (faiss)"
    assert last["bytes_per_vector"] >= 20
    assert last["recall"]["mean"] > 0.3


def test_info_tells_the_build_and_every_key_is_documented(inside, files):
    report = json.loads(inside("info", files / "base.vec", "--json")[1])
    assert report["kind"] == "vector-index"
    assert report["facts"]["bytes_per_vector"] == 20
    held = load_file(files / "base.vec")
    from safetensors import safe_open

    with safe_open(files / "base.vec", "pt") as file:
        facts = json.loads(file.metadata()["bntools.report"])
    page = PAGE.read_text()
    assert all(re.search(rf"\b{key}\b", page) for key in facts), facts.keys()
    formats = (PAGE.parents[1] / "man5" / "bntools-index.5").read_text()
    assert all(name.replace("second.", "") in formats for name in held), held.keys()


def test_a_pipe_serves_as_well_as_a_file(run, files):
    buffer = io.BytesIO()
    np.save(buffer, np.load(files / "base.npy"))
    made = run("vec-index", "-", "--bytes", "20", "-q", data=buffer.getvalue())
    assert made.returncode == 0, made.stderr
    found = run("vec-index", "-", "--search", files / "test.npy", data=made.stdout)
    assert len(found.stdout.splitlines()) == 40
    cut = run("vec-index", "-", "--search", files / "test.npy", data=made.stdout[:-100])
    assert cut.returncode == 3


def test_ids_come_from_the_file_and_stay_through_every_change(inside, files, tmp_path):
    base = np.load(files / "base.npy")
    save_file({"x": torch.from_numpy(base), "ids": torch.arange(600) + 7000}, tmp_path / "x.safetensors")
    x, y, z, w = (tmp_path / f"{name}.vec" for name in "xyzw")
    gone = tmp_path / "gone.txt"
    assert inside("vec-index", tmp_path / "x.safetensors", "--bytes", 20, "-o", x, "-q")[0] == 0
    gone.write_text("7003\n7599\n")
    assert inside("vec-index", x, "--delete", gone, "-o", y)[0] == 0
    assert inside("vec-index", y, "--add", files / "base.npy", "-o", z)[0] == 0
    before, after = load_file(x), load_file(z)
    assert all((after[name] == before[name]).all() for name in before)
    assert set(after) - set(before) == {"deleted", "segment.1.codes", "segment.1.factor", "segment.1.ids"}
    facts = json.loads(inside("info", z, "--json")[1])["facts"]
    assert (facts["n"], facts["segments"], facts["deleted"]) == (1198, 2, 2)
    assert inside("vec-index", z, "--compact", "-o", w)[0] == 0
    ids = load_file(w)["ids"].tolist()
    assert ids == [i for i in range(7000, 8200) if i not in (7003, 7599)]
    hits = [inside("vec-index", path, "--search", files / "test.npy")[1] for path in (z, w)]
    assert hits[0] == hits[1]
    for text, code in (("1\n", 2), ("seven\n", 3)):
        gone.write_text(text)
        assert inside("vec-index", x, "--delete", gone, "-o", tmp_path / "v.vec")[0] == code
    assert inside("vec-index", x, "--delete", tmp_path / "none.txt", "-o", tmp_path / "v.vec")[0] == 2


def test_rows_coded_apart_are_gathered(inside, files, tmp_path):
    base = np.load(files / "base.npy")
    np.save(tmp_path / "more.npy", base[::-1])
    words = ("vec-index", files / "base.vec", "--add", tmp_path / "more.npy")
    assert inside(*words, "--alone", "-o", tmp_path / "part.vec")[0] == 0
    assert inside(*words, "-o", tmp_path / "grown.vec")[0] == 0
    words = ("vec-index", files / "base.vec", "--gather", tmp_path / "part.vec")
    assert inside(*words, "-o", tmp_path / "whole.vec")[0] == 0
    hits = [inside("vec-index", tmp_path / f"{name}.vec", "--search", files / "test.npy")[1]
            for name in ("grown", "whole")]  # fmt: skip
    assert hits[0] == hits[1]
    np.save(tmp_path / "all.npy", np.concatenate([base, base[::-1]]))
    words = ("eval", tmp_path / "grown.vec", "--data", files / "test.npy", "--data", tmp_path / "all.npy")
    assert json.loads(inside(*words, "--json")[1])["recall"]["mean"] > 0.9


def test_scores_of_an_index_with_deleted_rows_are_held_against_those_that_are_left(inside, files, tmp_path):
    base = np.load(files / "base.npy")
    (tmp_path / "gone.txt").write_text("".join(f"{i}\n" for i in range(0, 600, 3)))
    np.save(tmp_path / "left.npy", np.delete(base, np.arange(0, 600, 3), axis=0))
    words = ("vec-index", files / "base.vec", "--delete", tmp_path / "gone.txt", "-o", tmp_path / "x.vec")
    assert inside(*words)[0] == 0
    words = ("eval", tmp_path / "x.vec", "--data", files / "test.npy", "--data")
    code, out, err = inside(*words, tmp_path / "left.npy", "--json")
    assert code == 0, err
    assert json.loads(out)["recall"]["mean"] > 0.9
    assert inside(*words, files / "base.npy")[0] == 3


def test_a_graph_is_searched_and_scored_by_command(inside, files, tmp_path):
    words = ("vec-index", files / "base.npy", "--queries", files / "learn.npy", "--bytes", 20, "--graph")
    target = ("-o", tmp_path / "x.vec", "-q")
    assert inside(*words, "--second", "lvq8", "--degree", 12, "--ef-build", 40, *target)[0] == 0
    assert load_file(tmp_path / "x.vec")["graph.neighbours"].shape == (600, 18)
    words = ("vec-index", tmp_path / "x.vec", "--search", files / "test.npy", "-k", 5)
    walked, scanned = (
        [json.loads(line)["ids"] for line in inside(*words, *more)[1].splitlines()]
        for more in (("--ef", 200), ("--probe", 1))
    )
    assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(walked, scanned, strict=True)]) > 0.9
    words = ("eval", tmp_path / "x.vec", "--data", files / "test.npy", "--data", files / "base.npy", "--json")
    report = json.loads(inside(*words, "--set", "ef=200")[1])
    assert (report["graph_bytes_per_vector"], report["ef"]) == (72, 200)
    page = PAGE.read_text()
    assert all(re.search(rf"\b{key}\b", page) for key in report), report.keys()
    formats = (PAGE.parents[1] / "man5" / "bntools-index.5").read_text()
    assert all(name.replace("second.", "") in formats for name in load_file(tmp_path / "x.vec"))


def test_the_unembedding_of_a_model_is_a_database(inside, tmp_path):
    code, _, err = inside("vec-index", "default:", "--bytes", 16, "-o", tmp_path / "head.vec", "-q")
    if code == 2:  # a directory is what is promised
        from bntools.core.text.documents import tiny_model_dir

        code, _, err = inside("vec-index", tiny_model_dir(), "--bytes", 16, "-o", tmp_path / "head.vec", "-q")
    assert code == 0, err
    assert json.loads(inside("info", tmp_path / "head.vec", "--json")[1])["facts"]["n"] > 100


def test_a_dry_run_writes_nothing(inside, files, tmp_path):
    plan = json.loads(inside("vec-index", files / "base.npy", "-o", tmp_path / "x.vec", "--dry-run")[1])
    assert (plan["kind"], plan["rows"], plan["width"]) == ("plan", 600, 32)
    assert not list(tmp_path.iterdir())
    plan = json.loads(inside("vec-index", files / "base.vec", "--search", files / "test.npy", "--dry-run")[1])
    assert (plan["kind"], plan["queries"]) == ("plan", 40)


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (("base.npy", "--bytes", "4"), 2, "--bytes 4"),
        (("base.npy", "--bytes", "69"), 2, "5 to 68"),
        (("base.npy", "--method", "leanvec-es"), 2, "learns from queries"),
        (("base.npy", "--recall", "0.9", "--queries", "test.npy"), 2, "there are 40"),
        (("base.npy", "--recall", "0.9", "--bytes", "20"), 2, "looks for it"),
        (("base.npy", "--rerank", "20"), 2, "--rerank"),
        (("base.npy", "--paper"), 2, "leanvec-fw"),
        (("base.npy", "--code", "lvq8", "--cells", "4"), 2, "--cells"),
        (("base.npy", "--queries", "wide.npy"), 3, "of 33 coordinates"),
        (("bad.npy",), 3, "row 5"),
        (("zero.npy", "--metric", "cos"), 3, "row 2"),
        (("objects.npy",), 3, "objects.npy"),
        (("base.vec", "--search", "wide.npy"), 3, "of 33 coordinates"),
        (("base.vec", "--search", "test.npy", "-k", "601"), 2, "holds 600"),
        (("base.npy", "--search", "test.npy"), 3, "base.npy"),
        (("base.vec", "--search", "test.npy", "--add", "test.npy"), 2, "two commands"),
        (("nowhere.npy",), 2, "nowhere.npy"),
    ],
)
def test_what_cannot_be_is_refused_by_name(inside, files, words, code, what):
    base = np.load(files / "base.npy")
    np.save(files / "wide.npy", np.zeros((3, 33), np.float32))
    np.save(files / "objects.npy", np.array([{"a": 1}], object), allow_pickle=True)
    for name, row, value in (("bad", 5, np.inf), ("zero", 2, 0)):
        broken = base.copy()
        broken[row] = value
        np.save(files / f"{name}.npy", broken)
    named = [files / w if "." in w and not w[0].isdigit() else w for w in words]
    target = () if "--search" in words else ("-o", files / "never.vec")
    status, _, error = inside("vec-index", *named, *target)
    assert status == code, error
    assert what in error
    assert not (files / "never.vec").exists()


def test_a_damaged_index_is_refused_whole(inside, files, tmp_path):
    data = (files / "base.vec").read_bytes()
    (tmp_path / "cut.vec").write_bytes(data[:-64])
    assert inside("vec-index", tmp_path / "cut.vec", "--search", files / "test.npy")[0] == 3
    from safetensors import safe_open

    whole = tmp_path / "whole.vec"
    (tmp_path / "gone.txt").write_text("5\n")
    words = (
        "vec-index",
        files / "base.npy",
        "--bytes",
        20,
        "--second",
        "lvq8",
        "--graph",
        "-o",
        tmp_path / "x.vec",
    )
    assert inside(*words)[0] == 0
    words = ("--add", files / "base.npy", "--delete", tmp_path / "gone.txt", "-o", whole)
    assert inside("vec-index", tmp_path / "x.vec", *words)[0] == 0
    assert inside("vec-index", whole, "--search", files / "test.npy")[0] == 0
    held = load_file(whole)
    with safe_open(whole, "pt") as file:
        metadata = file.metadata()
    for name, change in (
        ("groups.order", lambda t: t + 32),
        ("groups.start", lambda t: t.flip(0)),
        ("words", lambda t: t[1:]),
        ("factor", lambda t: t[:100]),
        ("mean", lambda t: t[:3]),
        ("second.low", lambda t: t[:3]),
        ("deleted", lambda t: t[:3]),
        ("graph.neighbours", lambda t: t + 600),
        ("graph.entry", lambda t: t - 700),
        ("graph.scale", lambda t: t[:3]),
        ("segment.1.codes", lambda t: t[:1]),
        ("segment.1.factor", lambda t: t[:-1]),
    ):
        save_file({**held, name: change(held[name]).contiguous()}, tmp_path / "bad.vec", metadata)
        status, _, error = inside("vec-index", tmp_path / "bad.vec", "--search", files / "test.npy")
        assert status == 3, (name, error)


def test_the_same_command_gives_the_same_bytes(inside, files, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    found = []
    for threads in (1, 2):
        words = ("vec-index", files / "base.npy", "--queries", files / "learn.npy", "--bytes", "16")
        assert inside(*words, "-o", tmp_path / f"{threads}.vec", "--threads", threads)[0] == 0
        found.append({n: t.numpy().tobytes() for n, t in load_file(tmp_path / f"{threads}.vec").items()})
    assert found[0] == found[1]
