"""The one stream format: what we write stock tools read, what is damaged is refused, nothing half-written stays."""

from __future__ import annotations

import json
import os
import random
import threading

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bntools.core.artifact import header, streams
from bntools.core.artifact import reader as artifact
from bntools.core.artifact.writer import Writer
from bntools.core.errors import BAD_INPUT, USAGE, BnError

DTYPES = [
    torch.uint8,
    torch.int8,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.int64,
    torch.bool,
]


def write(path, tensors, *, files=None, kind="model", **options):
    with Writer(str(path), kind, **options) as out:
        for name, tensor in tensors.items():
            out.add(name, tensor)
        out.files = files or {}
        out.config = {"model_type": "llama"}
        out.describe("history", [{"tool": "test"}])
    return out.manifest


@pytest.fixture
def sample(tmp_path):
    path = tmp_path / "sample.safetensors"
    tensors = {
        "a": torch.arange(7, dtype=torch.uint8),
        "b": torch.randn(3, 5),
        "c": torch.randn(64, 64).half(),
    }
    write(path, tensors, files={"tokenizer.json": b'{"x": 1}'})
    return path, tensors


tensor_lists = st.lists(
    st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 5), max_size=3)), min_size=0, max_size=8
)


@settings(deadline=None, max_examples=60)
@given(tensor_lists, st.integers(0, 9999))
def test_whatever_is_written_the_stock_library_reads(tmp_path_factory, specs, seed):
    torch.manual_seed(seed)
    path = tmp_path_factory.mktemp("any") / "x.safetensors"
    tensors = {f"t{i}": torch.randint(0, 2, shape).to(dtype) for i, (dtype, shape) in enumerate(specs)}
    write(path, tensors, files={"note.txt": b"hello\n\n"})
    stock = safetensors.torch.load_file(path)
    ours = artifact.open_path(path)
    for name, tensor in tensors.items():
        assert stock[name].dtype == tensor.dtype
        assert torch.equal(stock[name], tensor)
        assert torch.equal(ours.tensor(name), tensor)
        entry = ours.entries[name]
        assert entry.start % max(tensor.element_size(), 1) == 0, (
            "a misaligned tensor is silently slow or wrong in torch"
        )
    assert ours.files == {"note.txt": b"hello\n\n"}
    assert set(stock) - set(tensors) == {"bntools.file/note.txt"}


def test_the_data_section_starts_on_a_cache_line(sample):
    assert artifact.open_path(sample[0]).header.size % 64 == 0


def test_the_same_content_gives_the_same_bytes(tmp_path):
    tensors = {"w": torch.ones(3, 3), "v": torch.zeros(5, dtype=torch.uint8)}
    first, second = write(tmp_path / "1", tensors), write(tmp_path / "2", tensors)
    assert first["sha256"] == second["sha256"]


def test_the_manifest_tells_size_and_digest(sample, tmp_path):
    import hashlib

    manifest = write(tmp_path / "m", sample[1])
    data = (tmp_path / "m").read_bytes()
    assert manifest["bytes"] == len(data)
    assert manifest["sha256"] == hashlib.sha256(data).hexdigest()


def test_a_file_cut_anywhere_is_refused(sample, tmp_path):
    data = sample[0].read_bytes()
    cut = tmp_path / "cut"
    for length in [*range(0, len(data), 7), len(data) - 1]:
        cut.write_bytes(data[:length])
        with pytest.raises(BnError) as caught:
            artifact.open_path(cut)
        assert caught.value.code == BAD_INPUT


def test_bytes_behind_the_last_tensor_are_refused(sample, tmp_path):
    (tmp_path / "long").write_bytes(sample[0].read_bytes() + b"\0")
    with pytest.raises(BnError, match="trailing"):
        artifact.open_path(tmp_path / "long")


def test_a_cut_pipe_is_refused_by_the_streaming_reader(sample):
    data = sample[0].read_bytes()
    for length in range(0, len(data), 61):
        with pytest.raises(BnError):
            list(artifact.stream(pipe_with(data[:length])))


def test_the_streaming_reader_sees_every_tensor_in_order(sample):
    seen = {entry.name: bytes(buffer) for entry, buffer in artifact.stream(pipe_with(sample[0].read_bytes()))}
    stored = artifact.open_path(sample[0])
    assert seen == {name: bytes(stored.raw(name)) for name in stored.entries}


def pipe_with(data: bytes) -> int:
    reader, writer = os.pipe()

    def feed():
        try:
            streams.write_all(writer, data)
        except BrokenPipeError:
            pass
        finally:
            os.close(writer)

    threading.Thread(target=feed, daemon=True).start()
    return reader


def test_a_slow_pipe_is_read_whole(sample):
    data = sample[0].read_bytes()
    fd = streams.spool(pipe_with(data))
    assert os.pread(fd, len(data) + 1, 0) == data


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        (
            {
                "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                "b": {"dtype": "U8", "shape": [4], "data_offsets": [4, 8]},
            },
            "overlaps",
        ),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, "hole"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, "offsets"),
        ({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}, "shape"),
        ({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, "shape"),
        ({"a": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}}, "dtype"),
        ({"a": {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]}}, "dtype"),
        ({"a": {"dtype": "U8", "shape": [1 << 62, 1 << 62], "data_offsets": [0, 8]}}, "overflow|offsets"),
        ({"a": {"dtype": "U8", "shape": [0, 1 << 62, 1 << 62, 8], "data_offsets": [0, 8]}}, "offsets"),
        ({"a": {"dtype": "F4", "shape": [3], "data_offsets": [0, 2]}}, "inside a byte"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}, "offsets"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0.0, 8.0]}}, "offsets"),
        ({"a": {"dtype": "F32", "shape": [2]}}, "exactly"),
        ({"a": 3}, "exactly"),
        ({"__metadata__": {"x": 1}}, "strings"),
        ({"__metadata__": []}, "strings"),
        ([], "not a JSON object"),
    ],
)
def test_a_header_that_breaks_the_format_is_named(entries, problem):
    with pytest.raises(BnError, match=problem):
        header.parse(json.dumps(entries).encode())


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":1}',
        b"{" * 100000,
        b'{"a":NaN}',
        b"\xff\xfe{}",
        b'{"\\ud800":1}',
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
)
def test_json_that_other_readers_would_take_differently_is_refused(text):
    with pytest.raises(BnError, match="damaged header"):
        header.parse(text)


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/etc/passwd",
        "a/b/c",
        "a/../b",
        "a/.b",
        "a/",
        "/a",
        "",
        ".hidden",
        "..",
        "a\0b",
        "ü",
        "a b",
    ],
)
def test_a_hostile_side_file_name_never_becomes_a_path(name):
    with pytest.raises(BnError, match="hostile"):
        header.side_file_name(header.FILE_PREFIX + name)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "empty"), (b"PK\x03\x04abcdef", "zip"), (b"\x80\x02abc", "pickle"), (b"\x1f\x8b12345678", "gzip"),
     (b"\x93NUMPY1234", "numpy"), (b'{"kind": "x"}', "JSON"), (b"hello world", "neither")],
)  # fmt: skip
def test_a_foreign_file_is_refused_by_its_name(tmp_path, content, said):
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(BnError, match=said) as caught:
        artifact.open_path(tmp_path / "f")
    assert caught.value.code == BAD_INPUT


@pytest.mark.parametrize("rounds", [pytest.param(21_000, marks=pytest.mark.slow), 1_000])
def test_mutated_streams_give_only_clean_errors(sample, rounds):
    """Fuzz: no exception but ours, and never more memory than the file is long."""
    original = sample[0].read_bytes()
    length = int.from_bytes(original[:8], "little")
    chance = random.Random(5)
    accepted, codes = 0, set()
    for _ in range(rounds):
        data = mutate(bytearray(original), length, chance)
        fd = streams.temporary_fd()
        streams.write_all(fd, bytes(data))
        try:
            with artifact.Artifact(fd, "fuzz") as found:
                assert found.header.total == len(data)
                _ = (found.history, found.report, found.files, [found.tensor(name) for name in found.names()])
                accepted += 1
        except BnError as error:
            codes.add(error.code)
    assert 0 < accepted < rounds
    assert codes == {BAD_INPUT}


def mutate(data: bytearray, length: int, chance: random.Random) -> bytearray:
    for _ in range(chance.randint(1, 4)):
        kind = chance.randrange(6)
        place = (
            chance.randrange(len(data))
            if chance.random() < 0.2
            else chance.randrange(min(8 + length, len(data)))
        )
        if kind == 0:
            data[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[place] = chance.choice(b'{}[]",:0123456789-eE\\\0\xff')
        elif kind == 2:
            del data[place : place + chance.randint(1, 9)]
        elif kind == 3:
            data[place:place] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 9)))
        elif kind == 4:
            del data[chance.randrange(len(data)) :]
        else:
            data[:8] = chance.randrange(1 << chance.choice([8, 16, 27, 40, 64])).to_bytes(8, "little")
        if not data:
            return bytearray(b"\0")
    return data


def test_an_existing_file_is_never_replaced_without_force(sample, tmp_path):
    before = sample[0].read_bytes()
    with pytest.raises(BnError, match="exists") as caught:
        write(sample[0], {"z": torch.zeros(1)})
    assert caught.value.code == USAGE
    assert sample[0].read_bytes() == before
    write(sample[0], {"z": torch.zeros(1)}, force=True)
    assert list(artifact.open_path(sample[0]).names()) == ["z"]


def test_a_failing_writer_leaves_nothing(tmp_path):
    def fail():
        with Writer(str(tmp_path / "x"), "model") as out:
            out.add("a", torch.ones(4))
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError):
        fail()
    assert os.listdir(tmp_path) == []


def test_a_new_file_has_the_mode_the_umask_asks_for(tmp_path):
    old = os.umask(0o027)
    try:
        write(tmp_path / "x", {"a": torch.ones(1)})
    finally:
        os.umask(old)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def test_a_link_stays_a_link_and_a_fifo_a_fifo(tmp_path):
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    write(tmp_path / "link", {"a": torch.ones(1)}, force=True)
    assert (tmp_path / "link").is_symlink()
    assert artifact.open_path(tmp_path / "target").names() == ["a"]
    os.mkfifo(tmp_path / "fifo")
    received = {}
    reader = threading.Thread(target=lambda: received.update(data=(tmp_path / "fifo").read_bytes()))
    reader.start()
    assert write(tmp_path / "fifo", {"a": torch.ones(1)}) is None
    reader.join()
    assert (tmp_path / "fifo").is_fifo()
    assert safetensors.torch.load(received["data"])["a"].item() == 1


def test_a_device_is_written_to_and_stays_a_device(tmp_path):
    write("/dev/null", {"a": torch.ones(1)})
    assert not os.path.isfile("/dev/null")


def test_a_directory_has_plain_side_files_and_stock_weights(tmp_path):
    manifest = write(f"{tmp_path}/d/", {"a": torch.ones(2)}, files={"tokenizer.json": b"{}"})
    assert sorted(os.listdir(tmp_path / "d")) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert set(safetensors.torch.load_file(tmp_path / "d" / "model.safetensors")) == {"a"}
    assert manifest["bytes"] == sum(child.stat().st_size for child in (tmp_path / "d").iterdir())
    assert (tmp_path / "d" / "tokenizer.json").read_bytes() == b"{}"


def test_force_never_removes_a_directory_that_is_no_model(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    for force in (False, True):
        with pytest.raises(BnError):
            write(f"{tmp_path}/home/", {"a": torch.ones(2)}, force=force)
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years of work"


def test_metadata_over_the_limit_is_refused_rather_than_slow(tmp_path):
    with pytest.raises(BnError, match="limit"), Writer(str(tmp_path / "x"), "model") as out:
        out.describe("report", "x" * 70000)
    assert os.listdir(tmp_path) == []


def test_a_missing_folder_is_found_before_any_work(tmp_path):
    with pytest.raises(BnError, match="no folder") as caught:
        Writer(str(tmp_path / "no" / "x"), "model")
    assert caught.value.code == USAGE
