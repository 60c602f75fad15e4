"""A folder in Hugging Face layout: which files hold the weights, and whether all of them are there."""

from __future__ import annotations

from pathlib import Path

from bntools.core.artifact.reader import open_path, parse_json
from bntools.core.errors import bad_input
from bntools.core.model.model import Shards

INDEX = "model.safetensors.index.json"


def check_folder(folder: Path) -> None:
    """Raises BnError (exit 3) naming what is missing or cut short in a folder of a model's files.

    Every index has its shards and their tensors, every safetensors file its own length, every JSON its end; a link of
    another program's cache that leads nowhere is a file that is missing.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not path.exists():
            raise bad_input(f"{folder}: {path.relative_to(folder)} is missing", "fetch it again")
        if path.suffix == ".json" and path.is_file():
            parse_json(path.read_bytes(), object, str(path))
        if path.suffix == ".safetensors":
            open_path(path).close()
    if (folder / INDEX).is_file():
        check_index(folder, Shards([open_path(path) for path in weight_files(folder)]))


def check_index(folder: Path, shards: Shards) -> None:
    """Raises BnError (exit 3) where a tensor that the index of shards names is in none of them."""
    index = folder / INDEX
    if not index.is_file():
        return
    absent = sorted(set(_weight_map(index)) - set(shards.entries))
    if absent:
        more = f" ({len(absent)} tensors)" if len(absent) > 1 else ""
        raise bad_input(f"{folder}: {absent[0]!r} is in the index and in no shard{more}", "fetch it again")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a directory, by its index where there is one."""
    index = folder / INDEX
    if index.is_file():
        names = sorted(set(_weight_map(index).values()))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise bad_input(
                f"{folder}: shard {missing[0]} is missing ({len(missing)} of {len(names)})", "fetch it again"
            )
        return [folder / name for name in names]
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return files
    if files:
        raise bad_input(f"{folder} has {len(files)} safetensors files and no model.safetensors.index.json")
    old = sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt"))
    hint = "convert it to safetensors: pickled weights can run code" if old else "is this a model directory?"
    raise bad_input(f"no safetensors weights in {folder}", hint)


def _weight_map(index: Path) -> dict[str, str]:
    """Which file of its folder holds each tensor."""
    table = parse_json(index.read_bytes(), dict, str(index)).get("weight_map")
    if not isinstance(table, dict) or not table or not all(map(_is_name, table.values())):
        raise bad_input(f"{index}: weight_map must map tensors to files of this folder")
    return table


def _is_name(value: object) -> bool:
    """Whether it may be the name of a file in the same folder."""
    if not isinstance(value, str) or not value.isprintable():
        return False
    return 0 < len(value.encode()) <= 255 and "/" not in value and value[0] != "."


def check_no_dead_links(folder: Path) -> None:
    """Raises BnError (exit 3) naming a link of another program's cache that leads to no file."""
    absent = sorted(path.name for path in folder.iterdir() if path.is_symlink() and not path.exists())
    if absent:
        raise bad_input(f"{folder}: {absent[0]} is a link to a file that is missing", "fetch it again")
