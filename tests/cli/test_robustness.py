"""The command line in a hostile world: damaged input, dead neighbours, full disks, signals, terminals."""

from __future__ import annotations

import json
import os
import pty
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from bntools import cli
from bntools.core.artifact import header, reader
from bntools.core.artifact.writer import Writer
from bntools.core.text.documents import tiny_model_dir

COMMAND = [sys.executable, "-m", "bntools"]
pytestmark = pytest.mark.slow


def clean(done, code):
    """The exit code, and on stderr nothing but notes, one error line and its hint: never a traceback."""
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if "no model named" not in line]
    assert re.match(r"bntools \w+: error: \S", lines[0]), lines
    assert all(line.startswith("hint: ") for line in lines[1:]), lines
    assert len(lines) <= 2


@pytest.fixture(scope="module")
def packed(run, tmp_path_factory):
    """A quantized embedded model in a file."""
    path = tmp_path_factory.mktemp("packed") / "q.safetensors"
    assert run("quantize", "--bits", 3, "-q", "-o", path).returncode == 0
    return path


@pytest.fixture
def model(tmp_path):
    """A copy of the embedded model that a test may damage."""
    return shutil.copytree(tiny_model_dir(), tmp_path / "model")


def test_a_killed_quantize_leaves_no_file_under_the_final_name(tmp_path):
    chance = random.Random(1)
    for attempt in range(4):
        target = tmp_path / f"q{attempt}.safetensors"
        process = subprocess.Popen([*COMMAND, "quantize", "-q", "-o", target], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + chance.uniform(1, 5)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if target.exists():
            reader.open_path(target).close()  # finished before the shot: then it is whole


def opened_by_a_reader(fifo, process):
    """Our end of a pipe once the process reads from the other, and so has its signals set."""
    while process.poll() is None:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            time.sleep(0.05)
    raise AssertionError(process.communicate())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_nothing_behind(number, code, tmp_path):
    fifo = tmp_path / "never-written"
    os.mkfifo(fifo)  # its reader waits for ever: the signal always comes midway
    process = subprocess.Popen(
        [*COMMAND, "quantize", str(fifo), "-o", str(tmp_path / "q")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # as a shell has it, whoever runs this
    )
    writer = opened_by_a_reader(fifo, process)
    process.send_signal(number)
    out, errors = process.communicate(timeout=60)
    os.close(writer)
    assert process.returncode == code
    assert out == b""
    assert b"Traceback" not in errors
    assert os.listdir(tmp_path) == ["never-written"]


@pytest.mark.parametrize(
    ("number", "ends"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_during_a_compilation_is_not_lost(number, ends):
    """An exception inside a callback of llvmlite is dropped by C code, and the command would go on."""
    called_back: dict = {}
    exec(
        compile("def work(inner): inner()", "/site-packages/llvmlite/binding/engine.py", "exec"), called_back
    )
    before = {each: signal.signal(each, cli._terminate) for each in (number, signal.SIGALRM)}
    try:
        called_back["work"](lambda: signal.raise_signal(number))  # nothing is raised here
        with pytest.raises(ends):
            time.sleep(10)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for each, handler in before.items():
            signal.signal(each, handler)


def test_a_reader_that_dies_ends_the_writer_quietly(model):
    config = json.loads((model / "config.json").read_text())
    tensors = load_file(model / "model.safetensors")
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].repeat(
        20, 1
    )  # more than a pipe holds
    save_file(tensors, model / "model.safetensors")
    (model / "config.json").write_text(json.dumps(config | {"vocab_size": 20480}))
    writer = subprocess.Popen(
        [*COMMAND, "quantize", "-q", str(model)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    assert len(writer.stdout.read(10)) == 10
    writer.stdout.close()
    assert writer.wait(60) == 141
    assert writer.stderr.read() == b""


def test_a_full_disk_is_an_error_and_leaves_nothing(run, tmp_path):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, "quantize", "-q"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    clean(done, 1)
    assert "space" in done.stderr


def test_an_existing_target_is_kept_without_force(run, tmp_path):
    (tmp_path / "x").write_text("precious")
    clean(run("quantize", "-o", tmp_path / "x"), 2)
    assert (tmp_path / "x").read_text() == "precious"
    clean(run("quantize", "-o", tmp_path / "missing" / "x"), 2)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_named(run, model, tmp_path, bad):
    tensors = load_file(model / "model.safetensors")
    tensors["model.layers.2.mlp.up_proj.weight"][5, 5] = bad
    save_file(tensors, model / "model.safetensors")
    done = run("quantize", model, "-q", "-o", tmp_path / "q")
    clean(done, 3)
    assert "model.layers.2.mlp.up_proj.weight" in done.stderr
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("tool", ["eval", "quantize", "export"])
@pytest.mark.parametrize(
    "data", [b"", b'{"kind": "eval"}', b"[1]", b"hello", b"PK\x03\x04" + bytes(99), b"GGUF" + bytes(99)]
)
def test_what_is_no_model_is_refused(run, tool, data):
    clean(run(tool, *(["-o", "/dev/null"] if tool != "eval" else []), data=data), 3)


def test_a_stream_cut_short_is_refused(run, packed):
    data = packed.read_bytes()
    for length in (1, 9, 5000, len(data) - 1):
        clean(run("info", data=data[:length]), 3)


def test_a_side_file_cannot_leave_its_folder(run, tmp_path):
    name = f"{header.FILE_PREFIX}../../evil.txt"
    with Writer(str(tmp_path / "a"), "model") as out:
        out.add("w", torch.ones(8, 8))
        out.config = json.loads((tiny_model_dir() / "config.json").read_text())
        out.add_raw(name, "U8", (8,), b"8 bytes!")
    done = run("export", tmp_path / "a", "-o", f"{tmp_path}/deep/", "-q")
    clean(done, 3)
    assert "hostile" in done.stderr
    assert os.listdir(tmp_path) == ["a"]


def test_a_shard_index_cannot_leave_its_folder(run, model):
    table = {"weight_map": {"w": "../../../etc/passwd"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(table))
    clean(run("info", model), 3)


@pytest.mark.parametrize(
    "change",
    [
        {"bits": 99},
        {"group": 0},
        {"shape": [3, 5]},
        {"dim": "up"},
        {"dtype": "U8"},
        {"symmetric": True, "shape": [64, 160]},
        {"shape": "x"},
    ],
)
def test_a_lying_quantization_table_is_refused(run, packed, tmp_path, change):
    source = reader.open_path(packed)
    table = json.loads(source.files["quantization.json"])
    next(iter(table["tensors"].values())).update(change)
    with Writer(str(tmp_path / "lie"), "model") as out:
        for name in source.names():
            entry = source.entries[name]
            out.add_raw(name, entry.dtype, entry.shape, source.raw(name))
        out.files = {**source.files, "quantization.json": json.dumps(table).encode()}
        out.config = source.json("config.json", dict)
    clean(run("export", tmp_path / "lie", "-o", "/dev/null"), 3)


def test_a_manifest_is_not_trusted_when_its_file_changed(run, packed, tmp_path):
    copy = shutil.copy(packed, tmp_path / "q")
    size = os.path.getsize(copy)
    manifest = {"bntools": 1, "kind": "model", "path": str(copy), "bytes": size, "sha256": "0" * 64}
    done = run("info", data=json.dumps(manifest).encode())
    clean(done, 3)
    clean(run("info", data=json.dumps(manifest | {"path": str(tmp_path / "gone")}).encode()), 3)


def test_a_traceback_is_for_those_who_ask(run):
    assert "Traceback" in run("eval", "/nowhere", BNTOOLS_DEBUG="1").stderr
    clean(run("eval", "/nowhere"), 2)


def test_the_environment_sets_defaults(run):
    report = json.loads(run("quantize", "--dry-run", BNTOOLS_QUANTIZE_BITS="2").stdout)
    assert report["bits_per_weight"]["linear"] < 2.5


def terminal(*words, **environment):
    """Run on a pseudo-terminal; returns exit code and everything that appeared."""
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update({"TERM": "xterm", **environment})
        os.execv(sys.executable, [*COMMAND, *words])
    shown = b""
    while True:
        try:
            block = os.read(fd, 65536)
        except OSError:
            break
        if not block:
            break
        shown += block
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown


def test_a_terminal_gets_tables_and_never_tensors(packed):
    code, shown = terminal("quantize", "-q")
    assert code == 2
    assert b"will not write tensors to a terminal" in shown
    code, shown = terminal("eval")
    assert code == 2
    assert b"for example" in shown
    code, shown = terminal("info", str(packed))
    assert code == 0
    assert b"bits per weight" in shown
    assert not shown.startswith(b"{")
    assert terminal("info", str(packed), "--json")[1].startswith(b"{")


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colour_where_none_is_wanted(packed, environment):
    code, shown = terminal("eval", str(packed), "--tokens", "300", "--against", "none", **environment)
    assert code == 0
    colours = re.findall(rb"\x1b\[[0-9;]*3[0-9][0-9;]*m", shown)
    assert not colours
    if "TERM" in environment:
        assert b"\x1b" not in shown


def test_quiet_is_quiet(run, tmp_path):
    done = run("quantize", "-q", "-o", tmp_path / "q")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["quantize", "default:"], "--work DIR would have kept what was finished"),
        (["eval", "--work=w", "default:"], "the same command goes on"),
        (["info", "default:"], ""),
    ],
)
def test_an_interrupted_run_says_what_became_of_its_work(words, hint, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.bntools, "main", interrupt)
    assert cli.run(words) == 130
    error = capsys.readouterr().err
    assert hint in error
    assert ("hint:" in error) == bool(hint)
