"""Finished units survive a kill, and parts from many machines join only where they belong together."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import make_model
from hypothesis import given
from hypothesis import strategies as st

from bntools.core.artifact.writer import Writer
from bntools.core.errors import BAD_INPUT, USAGE, BnError
from bntools.core.model import identity as model_identity
from bntools.core.model.identity import source_identity
from bntools.core.model.open import open_model
from bntools.core.work import folder as work_module
from bntools.core.work import shards
from bntools.core.work.folder import Work, first_difference
from bntools.core.work.shards import Shard
from bntools.core.work.states import States


def test_a_unit_comes_back_as_it_was(tmp_path):
    work = Work(str(tmp_path / "w"), {"tool": "t"})
    name = "a/tensor: with any name " * 20
    assert not work.has(name)
    work.save(name, {"x": torch.arange(5)}, {"error": 0.1})
    assert work.has(name)
    source, facts = work.load(name)
    assert torch.equal(source.tensor("x"), torch.arange(5))
    assert facts == {"error": 0.1}
    work.drop(name)
    assert not work.has(name)


def test_another_command_is_told_what_differs(tmp_path):
    Work(str(tmp_path), {"tool": "t", "settings": {"bits": 3, "group": 64}}).close()
    with pytest.raises(BnError, match=r"settings\.bits 3, not 4") as caught:
        Work(str(tmp_path), {"tool": "t", "settings": {"bits": 4, "group": 64}})
    assert caught.value.code == BAD_INPUT


def test_two_runs_do_not_share_a_folder(tmp_path):
    first = Work(str(tmp_path), {"a": 1})
    with pytest.raises(BnError, match="another run") as caught:
        Work(str(tmp_path), {"a": 1})
    assert caught.value.code == USAGE
    assert first.folder == tmp_path


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(BnError, match="other files") as caught:
        Work(str(tmp_path), {"a": 1})
    assert caught.value.code == USAGE
    assert [child.name for child in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_a_killed_writer_left_is_swept_away(tmp_path):
    Work(str(tmp_path), {"a": 1}).close()
    (tmp_path / ".block.unit.safetensors.tmp-123").write_bytes(b"half")
    work = Work(str(tmp_path), {"a": 1})
    assert [child.name for child in work.folder.iterdir()] == [work_module.IDENTITY]


def test_hidden_states_survive_to_the_bit(tmp_path):
    work = Work(str(tmp_path), {"a": 1})
    states = States((3, 4, 5), torch.bfloat16)
    values = torch.randn(3, 4, 5).bfloat16()
    states.put(0, values)
    states.save(work, "inputs")
    assert torch.equal(States.load(work, "inputs").get(0, 3), values)


def test_the_identity_of_a_source_changes_with_its_weights(tmp_path, monkeypatch):
    make_model("llama", tmp_path / "a")
    make_model("llama", tmp_path / "b", seed=1)
    for limit in (1 << 30, 0):
        monkeypatch.setattr(model_identity, "_HASHED", limit)
        a, b = (source_identity(open_model(str(tmp_path / name))) for name in "ab")
        assert a != b
        assert a == source_identity(open_model(str(tmp_path / "a")))


def test_the_first_difference_is_named():
    assert first_difference({"a": {"b": 1}}, {"a": {"b": 1}}) == ""
    assert first_difference({"a": {"b": 1}}, {"a": {"b": 2}}) == "a.b 1, not 2"
    assert first_difference({}, {"a": None, "c": "x"}) == 'c null, not "x"'


@given(st.lists(st.integers(0, 1000), max_size=40), st.integers(1, 12))
def test_every_job_is_in_exactly_one_part(sizes, count):
    owned = [index for part in range(count) for index in Shard(part, count).of(sizes)]
    assert owned == list(range(len(sizes)))


@given(st.lists(st.integers(1, 100), min_size=1, max_size=60), st.integers(1, 8))
def test_no_part_exceeds_its_share_by_more_than_one_job(sizes, count):
    for part in range(count):
        mine = sum(sizes[index] for index in Shard(part, count).of(sizes))
        assert mine <= sum(sizes) / count + max(sizes)


@pytest.mark.parametrize("text", ["1", "1/", "/2", "2/2", "-1/2", "a/b", "1/2/3", "1 /2"])
def test_a_wrong_shard_is_a_usage_error(text):
    with pytest.raises(BnError) as caught:
        Shard.parse(text)
    assert caught.value.code == USAGE


def write_part(path, index, count, identity, kind="x-part"):
    with Writer(str(path), kind) as out:
        out.add("t", torch.tensor([index]))
        out.describe("part", shards.describe(Shard(index, count), identity))
    return str(path)


def test_parts_are_joined_in_their_order(tmp_path):
    paths = [write_part(tmp_path / f"{name}.safetensors", i, 3, {"a": 1}) for i, name in enumerate("zay")]
    for given_paths in (paths, [str(tmp_path)]):
        found = shards.open_parts(given_paths, "x-part", {"a": 1})
        assert [int(part.tensor("t")) for part in found] == [0, 1, 2]


def test_parts_that_do_not_belong_together_are_named(tmp_path):
    first = write_part(tmp_path / "first.safetensors", 0, 3, {"a": 1})
    again = write_part(tmp_path / "again.safetensors", 0, 3, {"a": 1})
    other = write_part(tmp_path / "other.safetensors", 1, 3, {"a": 2})
    fewer = write_part(tmp_path / "fewer.safetensors", 1, 2, {"a": 1})
    alien = write_part(tmp_path / "alien.safetensors", 1, 3, {"a": 1}, kind="model")
    for paths, told in [
        ([first], r"part 1/3 and 1 more"),
        ([first, again], r"twice: .*first.*again"),
        ([first, other], r"other\.safetensors was made with a 2, not 1"),
        ([first, fewer], r"fewer\.safetensors is part 1/2"),
        ([first, alien], r"alien\.safetensors is an artifact of kind 'model'"),
    ]:
        with pytest.raises(BnError, match=told) as caught:
            shards.open_parts(paths, "x-part", {"a": 1})
        assert caught.value.code == BAD_INPUT
    (tmp_path / "empty").mkdir()
    with pytest.raises(BnError, match="no parts"):
        shards.open_parts([str(tmp_path / "empty")], "x-part", {"a": 1})


def test_damaged_part_metadata_is_bad_input(tmp_path):
    path = tmp_path / "p.safetensors"
    with Writer(str(path), "x-part") as out:
        out.add("t", torch.zeros(1))
        out.describe("part", {"index": "0", "of": 2})
    with pytest.raises(BnError, match="damaged") as caught:
        shards.open_parts([str(path)], "x-part", {})
    assert caught.value.code == BAD_INPUT
    assert json.loads(shards.open_path(path).metadata["bntools.part"])["of"] == 2
