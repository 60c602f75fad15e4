"""From what the user names to an opened model: directory, file, shards, GGUF, stream, manifest, hub id."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from bntools.core import EMBEDDED
from bntools.core.artifact import streams
from bntools.core.artifact.reader import STACK, Artifact, open_path, parse_json
from bntools.core.errors import BnError, bad_input, require, usage
from bntools.core.model import side_files
from bntools.core.model.folders import INDEX, check_index, check_no_dead_links, weight_files
from bntools.core.model.model import Model, Shards

STDIN = "-"
_VERIFIED = 1 << 30  # bytes up to which a recorded sha256 is worth the reading
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def open_model(spec: str, budget: int | None = None) -> Model:
    """Open the model that INPUT names. Raises BnError: exit 3 for bad input, 2 for a name nothing answers to.

    budget: bytes of a stack to be read at most; anything else is then refused (exit 2).
    """
    if spec == STDIN:
        return as_model(open_input(STDIN, budget), "standard input")
    if budget is not None:
        return as_model(open_input(spec, budget), spec)
    if spec == EMBEDDED:
        from bntools.core.text.documents import tiny_model_dir

        return _from_directory(tiny_model_dir(), EMBEDDED)
    path = Path(spec)
    if path.is_dir():
        return _from_directory(path, str(path))
    if path.exists():
        return _from_file(path)
    if _is_hub_id(spec):
        return _from_directory(_hub_snapshot(spec), spec)
    raise usage(
        f"no such file, directory or model: {spec}",
        "see bntools fetch --list, or use default: for the embedded model",
    )


def _is_hub_id(spec: str) -> bool:
    """Whether a name that is no path here reads as org/name rather than as a file that is missing."""
    return bool(_HUB_ID.fullmatch(spec)) and Path(spec).suffix not in (".safetensors", ".gguf", ".json")


def open_input(spec: str, budget: int | None = None) -> Artifact | Path | dict[str, Any]:
    """What INPUT holds without opening it as a model: an artifact, a directory or GGUF path, or a JSON object."""
    opened = _open_input(spec, budget)
    if budget is not None and not isinstance(opened, Artifact):
        raise usage(f"a budget is for stacks, and {spec} is none", "bntools stack-compress makes one")
    return opened


def _open_input(spec: str, budget: int | None) -> Artifact | Path | dict[str, Any]:
    if spec == STDIN:
        return _sniff(_stdin_fd(budget), "standard input", None, budget)
    if spec == EMBEDDED:
        from bntools.core.text.documents import tiny_model_dir

        return tiny_model_dir()
    path = Path(spec)
    if path.is_dir():
        return path
    if not path.exists() and _is_hub_id(spec):
        return _hub_snapshot(spec)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise usage(f"cannot open {spec}: {error.strerror}", "check the path") from None
    return _sniff(fd if streams.is_regular(fd) else streams.spool(fd, budget), spec, path, budget)


def _stdin_fd(budget: int | None) -> int:
    fd = os.dup(0)
    if streams.is_regular(fd):
        if os.lseek(fd, 0, os.SEEK_CUR) == 0:
            return fd
        spooled = streams.temporary_fd()  # something read from it before us: only the rest is ours
        while block := os.read(fd, streams.CHUNK):
            streams.write_all(spooled, block)
    else:
        spooled = streams.spool(fd, budget)
    os.close(fd)
    return spooled


def _sniff(fd: int, label: str, path: Path | None, budget: int | None) -> Artifact | Path | dict[str, Any]:
    kind = streams.sniff(os.pread(fd, 64, 0))
    if kind == "safetensors":
        return Artifact(fd, label, path.absolute() if path else None, budget)
    if kind == "json":
        text = os.pread(fd, os.fstat(fd).st_size, 0)
        os.close(fd)
        return _json_object(text, label, path, budget)
    if kind == "gguf":
        return path or Path(f"/proc/self/fd/{fd}")
    os.close(fd)
    raise streams.refuse(kind, label)


def _json_object(text: bytes, label: str, path: Path | None, budget: int | None) -> Any:
    """A JSON object; a manifest or shard index is followed to what it names."""
    value = parse_json(text, dict, label)
    if value.get("bntools") == 1 and isinstance(value.get("path"), str):
        return _follow(value, budget)
    if path is not None and isinstance(value.get("weight_map"), dict):
        return _indexed(path)
    return value


def _indexed(path: Path) -> Path:
    """The folder of a shard index; only the index that stands for the whole folder can be opened by name."""
    if path.name != INDEX:
        raise bad_input(f"{path} is a shard index of another name", f"rename it to {INDEX}")
    return path.parent


def _follow(manifest: dict[str, Any], budget: int | None) -> Artifact | Path | dict[str, Any]:
    """What a manifest points to, checked against the size it states."""
    path = Path(manifest["path"])
    if not path.exists():
        raise bad_input(
            f"the manifest names {path}, which is not there",
            "was it written on another machine? pipe the stream instead",
        )
    size = (
        sum(c.stat().st_size for c in path.rglob("*") if c.is_file())
        if path.is_dir()
        else path.stat().st_size
    )
    if size != manifest.get("bytes"):
        raise bad_input(
            f"{path} has {size} bytes, its manifest says {manifest.get('bytes')}",
            "it changed since; write it again",
        )
    opened = open_input(str(path), budget)
    if budget is not None:
        return opened  # a prefix is all that may be read, and has another digest
    if isinstance(opened, Artifact) and size <= _VERIFIED and opened.sha256() != manifest.get("sha256"):
        raise bad_input(f"{path} is not the file its manifest describes", "it changed since; write it again")
    return opened


def as_model(opened: Artifact | Path | dict[str, Any], label: str, *, unread: bool = False) -> Model:
    """An opened input as a model; BnError (exit 3) when it is a report or an artifact of another kind.

    unread: also one packed by a method that is not read, whose tensors then mean nothing; only to look at.
    """
    if isinstance(opened, dict):
        raise bad_input(
            f"{label} is a JSON report (kind {opened.get('kind')!r}) where a model is expected",
            "pipe the model, not its report",
        )
    if isinstance(opened, Artifact):
        return _from_artifact(opened, unread)
    return (
        _from_directory(opened, label if label == EMBEDDED else str(opened), unread)
        if opened.is_dir()
        else _from_gguf(opened, label)
    )


def _from_file(path: Path) -> Model:
    return as_model(open_input(str(path)), str(path))


def _from_artifact(source: Artifact, unread: bool = False) -> Model:
    if source.kind == "subspace":
        return _from_subspace(source)
    if source.kind not in ("model", "tensors", STACK):
        raise bad_input(
            f"{source.label} is an artifact of kind {source.kind!r}, not a model",
            f"bntools info {source.label}",
        )
    config = source.config
    files = {name: data for name, data in source.files.items() if name != "config.json"}
    if not config:
        if source.path is None or not (source.path.parent / "config.json").is_file():
            raise bad_input(
                f"{source.label} carries no config.json",
                "put config.json beside the file, or name its directory",
            )
        config = read_config(source.path.parent)
        files.update(side_files.read(source.path.parent))
    store, config, files = _adopt(Shards([source]), config, files, source.label, unread)
    return Model(store, config, files, source.label, source.path, source.history, source.report)


def _adopt(
    store: Shards, config: dict[str, Any], files: dict[str, bytes], label: str, unread: bool
) -> tuple[Any, Any, Any]:
    """A checkpoint quantized by others in our own terms. Raises BnError (exit 3) where it is none that is read."""
    from bntools.core.architecture import linears
    from bntools.core.foreign import adopt

    linears.check_counts(config, (entry.shape for entry in store.entries.values()), label)
    method = adopt.method_of(config)
    if method in adopt.READ:
        return adopt.adopt(store, config, files, label)
    if not unread:
        adopt.refuse_unread(method, store.entries, label)
    return store, config, files


def _from_subspace(source: Artifact) -> Model:
    """A language model fine-tuned in a subspace: its base is opened and moved."""
    from bntools.core.model import subspace

    network = subspace.read_facts(source).network
    if not isinstance(network.get("base"), str):
        raise bad_input(
            f"{source.label} is a network of {network.get('spec')}, not a language model",
            f"bntools eval {source.label} --data FOLDER",
        )
    base = open_model(network["base"])
    if base.store.sha256() != network.get("sha256"):
        raise bad_input(f"{base.label} is not the model {source.label} was made from", "it changed since")
    return subspace.fine_tuned(source, base)


def read_config(folder: Path) -> dict[str, Any]:
    try:
        return parse_json((folder / "config.json").read_bytes(), dict, f"{folder}/config.json")
    except FileNotFoundError:
        raise bad_input(f"no config.json in {folder}", "name a directory in Hugging Face layout") from None


def _from_directory(folder: Path, label: str, unread: bool = False) -> Model:
    check_no_dead_links(folder)
    config = read_config(folder)
    shards = Shards([open_path(path) for path in weight_files(folder)])
    check_index(folder, shards)
    first = shards.artifacts[0]
    store, config, files = _adopt(shards, config, side_files.read(folder), label, unread)
    return Model(store, config, files, label, folder.absolute(), first.history, first.report)


def _from_gguf(path: Path, label: str) -> Model:
    from bntools.core.foreign.gguf import GGUFModel

    source = GGUFModel(path)
    return Model(source, source.config, source.files, label, path.absolute() if path.exists() else None)


def _hub_snapshot(name: str) -> Path:
    """Folder of a hub model in the hub client's own cache."""
    hub = require("huggingface_hub", "hub")
    patterns = ["*.safetensors", *side_files.PATTERNS]
    try:
        return Path(hub.snapshot_download(name, allow_patterns=patterns))
    except Exception as error:  # the client raises errors of several libraries
        first = (str(error) or type(error).__name__).splitlines()[0][:160]
        hint = "is the network there? local models are named by path"
        raise BnError(f"cannot get {name} from the hub: {first}", hint) from error
