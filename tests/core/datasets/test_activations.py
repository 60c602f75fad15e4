"""Activations: what was written comes back, in pieces of any size, from any kind of place; damage is named."""

from __future__ import annotations

import json
import os
import resource

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bntools.core.datasets.activations import open_activations, write_activations
from bntools.core.datasets.activations_writer import ActivationsWriter
from bntools.core.errors import BnError

RNG = np.random.default_rng(0)


def example(rows: int = 50, width: int = 7):
    columns = {
        "label": RNG.integers(0, 9, rows),
        "pos": np.arange(rows, dtype=np.int16),
        "names": [f"word {i}" for i in range(rows)],
    }
    return RNG.normal(size=(rows, width)).astype(np.float32), columns


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], np.asarray(other[k])) for k in one)


def shards(folder, x, columns, per_shard: int = 12, **options):
    """Write a folder of shards from batches of `per_shard` rows, a shard a batch."""
    with ActivationsWriter(f"{folder}/", shard_bytes=1, **options) as out:
        for start in range(0, len(x), per_shard):
            part = slice(start, start + per_shard)
            out.add(x[part], {name: values[part] for name, values in columns.items()})
    return out


@pytest.mark.parametrize("place", ["acts.safetensors", "acts/"])
def test_what_is_written_comes_back(tmp_path, place):
    x, columns = example()
    manifest = write_activations(f"{tmp_path}/{place}", x, columns, facts={"layer": 3, "site": "resid"})
    assert manifest is not None
    with open_activations(manifest["path"]) as rows:
        assert (rows.rows, rows.width, rows.facts["layer"]) == (50, 7, 3)
        loaded, found = rows.load()
        assert np.array_equal(loaded, x)
        assert same(found, columns)
        assert found["pos"].dtype == np.int16


@settings(max_examples=15, deadline=None)
@given(
    per_shard=st.integers(1, 30), size=st.integers(1, 70), start=st.integers(0, 49), count=st.integers(0, 60)
)
def test_shards_read_in_any_pieces_are_the_rows_in_order(tmp_path_factory, per_shard, size, start, count):
    folder = tmp_path_factory.mktemp("s") / "acts"
    x, columns = example()
    shards(folder, x, columns, per_shard)
    with open_activations(str(folder)) as rows:
        batches = list(rows.batches(size))
        assert np.array_equal(np.concatenate([batch for batch, _ in batches]), x)
        assert np.array_equal(np.concatenate([c["names"] for _, c in batches]), columns["names"])
        stop = min(start + count, 50)
        assert np.array_equal(rows.read(start, stop), x[start:stop])
        assert np.array_equal(rows.column("label", start, stop), columns["label"][start:stop])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_stored_types_round_and_nothing_else(tmp_path, dtype):
    x, _ = example()
    write_activations(f"{tmp_path}/a", x, dtype=dtype)
    wanted = torch.from_numpy(x).to(getattr(torch, dtype)).float().numpy()
    assert np.array_equal(open_activations(f"{tmp_path}/a").load()[0], wanted)


def test_numbers_too_large_for_float16_turn_the_rows_into_bfloat16(tmp_path):
    x, columns = example()
    x[30] *= 1e6
    with ActivationsWriter(f"{tmp_path}/a", dtype="float16") as out:
        out.add(x[:20], {"pos": columns["pos"][:20]})
        out.add(x[20:], {"pos": columns["pos"][20:]})
    assert out.overflowed
    with open_activations(f"{tmp_path}/a") as rows:
        loaded, found = rows.load()
        assert rows.facts["dtype"] == "bfloat16"
    assert np.allclose(loaded, x, rtol=2**-7)
    assert np.array_equal(found["pos"], columns["pos"])


def test_several_layers_in_one_file_each_with_its_facts(tmp_path):
    x, columns = example()
    facts = {"site": "resid", "tensors": {"layer.1": {"layer": 1}, "layer.2": {"layer": 2}}}
    write_activations(f"{tmp_path}/a", {"layer.1": x, "layer.2": -x[:, :3]}, columns, facts=facts)
    with open_activations(f"{tmp_path}/a", "layer.2") as rows:
        assert np.array_equal(rows.load()[0], -x[:, :3])
        assert (rows.facts["layer"], rows.facts["site"]) == (2, "resid")
    with pytest.raises(BnError, match="which one") as error:
        open_activations(f"{tmp_path}/a")
    assert error.value.code == 2


def test_numpy_files_read_like_artifacts(tmp_path):
    x, columns = example()
    np.save(tmp_path / "x.npy", x.reshape(5, 10, 7))
    np.save(tmp_path / "f.npy", np.asfortranarray(x))
    np.savez(tmp_path / "x.npz", x=x.astype(">f8"), **columns)
    for name in ("x.npy", "f.npy", "x.npz"):
        assert np.array_equal(open_activations(f"{tmp_path}/{name}").load()[0], x)
    assert same(open_activations(f"{tmp_path}/x.npz").load()[1], columns)


def test_a_pipe_reads_like_a_file(tmp_path, monkeypatch):
    x, _ = example()
    write_activations(f"{tmp_path}/a", x)
    np.save(tmp_path / "x.npy", x)
    for name in ("a", "x.npy"):
        read, write = os.pipe()
        os.write(write, (tmp_path / name).read_bytes())
        os.close(write)
        saved = os.dup(0)
        os.dup2(read, 0)
        try:
            assert np.array_equal(open_activations("-").load()[0], x)
        finally:
            os.dup2(saved, 0)
            os.close(saved)
            os.close(read)


def test_a_manifest_is_followed(tmp_path):
    x, _ = example()
    manifest = write_activations(f"{tmp_path}/a", x)
    (tmp_path / "m.json").write_text(json.dumps(manifest))
    assert np.array_equal(open_activations(f"{tmp_path}/m.json").load()[0], x)


def test_files_of_one_folder_without_an_index_stand_in_the_order_of_their_numbers(tmp_path):
    x, _ = example(20)
    for part in range(10, -1, -1):
        write_activations(f"{tmp_path}/{part}.safetensors", x[part : part + 1])
    assert np.array_equal(open_activations(str(tmp_path)).load()[0], x[:11])


def test_hundreds_of_shards_do_not_take_hundreds_of_descriptors(tmp_path):
    x, columns = example(150)
    shards(tmp_path / "acts", x, columns, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 40, hard))
    try:
        assert np.array_equal(open_activations(f"{tmp_path}/acts").load()[0], x)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_bad_rows_are_counted_or_left_out(tmp_path):
    x, columns = example()
    x[7, 2], x[31, 0] = np.nan, np.inf
    write_activations(f"{tmp_path}/a", x, columns)
    with open_activations(f"{tmp_path}/a") as rows:
        with pytest.raises(BnError, match=r"2 rows of 50 .* first is row 7") as error:
            rows.load()
        assert error.value.code == 3
        with pytest.raises(BnError, match="the first is row 7"):
            list(rows.batches(5))
        loaded, found = rows.load("drop")
        assert len(loaded) == 48
        assert not {7, 31} & set(found["pos"].tolist())
        assert sum(len(batch) for batch, _ in rows.batches(10, "drop")) == 48


@pytest.mark.parametrize(
    ("content", "code", "what"),
    [
        ({"x": np.zeros((4, 3), np.int32)}, 3, "not floats|not rows of floats"),
        ({"x": np.zeros((0, 3), np.float32)}, 3, "no rows"),
        ({"a": np.zeros((4, 3), np.float32), "b": np.zeros((4, 3), np.float32)}, 2, "which one"),
    ],
)
def test_wrong_contents_are_refused(tmp_path, content, code, what):
    np.savez(tmp_path / "x.npz", **content)
    write_raw(tmp_path / "x.safetensors", content)
    for name in ("x.npz", "x.safetensors"):
        with pytest.raises(BnError, match=what) as error:
            open_activations(f"{tmp_path}/{name}")
        assert error.value.code == code


def write_raw(path, content) -> None:
    from safetensors.numpy import save_file

    save_file(content, path)


def test_wrong_places_are_refused(tmp_path):
    (tmp_path / "r.json").write_text('{"kind": "eval"}')
    (tmp_path / "p").write_bytes(b"\x80\x04pickle")
    (tmp_path / "t").write_text("words")
    for name, code in (("r.json", 3), ("p", 3), ("t", 3), ("absent", 2), ("", 3)):
        with pytest.raises(BnError) as error:
            open_activations(f"{tmp_path}/{name}")
        assert error.value.code == code


def test_rows_of_two_widths_or_layers_are_no_folder(tmp_path):
    x, _ = example()
    write_activations(f"{tmp_path}/0.safetensors", x, facts={"layer": 1})
    write_activations(f"{tmp_path}/1.safetensors", x, facts={"layer": 2})
    with pytest.raises(BnError, match=r"layer 2.*1"):
        open_activations(str(tmp_path))
    write_activations(f"{tmp_path}/1.safetensors", x[:, :5], facts={"layer": 1}, force=True)
    with pytest.raises(BnError, match=r"rows of 5 numbers.*of 7"):
        open_activations(str(tmp_path))


def test_a_missing_shard_and_a_short_one_are_named(tmp_path):
    x, columns = example()
    shards(tmp_path / "acts", x, columns)
    last = tmp_path / "acts" / "acts-00004.safetensors"
    data = last.read_bytes()
    last.write_bytes(data[:-5])
    with pytest.raises(BnError, match="truncated"):
        open_activations(f"{tmp_path}/acts")
    last.unlink()
    with pytest.raises(BnError, match=r"acts-00004.safetensors is missing"):
        open_activations(f"{tmp_path}/acts")


def test_a_folder_is_replaced_only_by_force_and_only_if_it_holds_activations(tmp_path):
    x, _ = example()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    with pytest.raises(BnError, match="no folder of activations"):
        write_activations(f"{tmp_path}/other/", x, force=True)
    write_activations(f"{tmp_path}/acts/", x)
    with pytest.raises(BnError, match="not empty"):
        write_activations(f"{tmp_path}/acts/", x)
    write_activations(f"{tmp_path}/acts/", 2 * x, force=True)
    assert np.array_equal(open_activations(f"{tmp_path}/acts").load()[0], 2 * x)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["acts", "other"]


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    x, columns = example()
    out = ActivationsWriter(f"{tmp_path}/acts/", shard_bytes=1)
    out.add(x, columns)
    out.__exit__(RuntimeError, RuntimeError(), None)
    assert list(tmp_path.iterdir()) == []
