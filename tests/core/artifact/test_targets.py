"""Folders that --force replaces: models, and what a Writer wrote; never anybody else's."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from bntools.core.artifact.writer import Writer, check_target
from bntools.core.errors import USAGE, BnError


def written(folder, kind, weights, names, force=False):
    with Writer(f"{folder}/", kind, force=force) as out:
        out.weights_file = weights
        out.files = dict.fromkeys(names, b"{}")
        out.add("x", torch.ones(3))


@pytest.mark.parametrize(
    ("kind", "weights", "names"),
    [
        ("module", "weights.safetensors", ["module.py", "fields.json"]),
        ("sae", "sae_weights.safetensors", ["cfg.json"]),
        ("model", "model.safetensors", ["config.json", "tokenizer.json"]),
    ],
)
def test_a_folder_that_was_written_is_written_again(kind, weights, names, tmp_path):
    folder = tmp_path / "out"
    written(folder, kind, weights, names)
    with pytest.raises(BnError, match="not empty"):
        written(folder, kind, weights, names)
    (folder / "note.txt").write_text("old")
    written(folder, kind, weights, names, force=True)
    assert sorted(path.name for path in folder.iterdir()) == sorted([weights, *names])


def test_other_people_s_folders_stand(tmp_path):
    tensors = {"x": torch.ones(3)}
    homes = {name: tmp_path / name for name in ("notes", "tensors", "damaged", "deep")}
    for home in homes.values():
        home.mkdir()
    (homes["notes"] / "note.txt").write_text("mine")
    save_file(tensors, homes["tensors"] / "x.safetensors", metadata={"kind": "mine"})
    (homes["damaged"] / "x.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    written(homes["deep"], "module", "weights.safetensors", [])
    (homes["deep"] / "inner").mkdir()
    (homes["deep"] / "inner" / "note.txt").write_text("mine")
    for name, home in homes.items():
        before = sorted(path.name for path in home.rglob("*"))
        with pytest.raises(BnError, match="does not look like a model") as refused:
            check_target(f"{home}/", True)
        assert refused.value.code == USAGE, name
        assert sorted(path.name for path in home.rglob("*")) == before
