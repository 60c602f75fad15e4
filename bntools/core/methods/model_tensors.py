"""Names and stored bytes of a model's tensors, from headers, whatever the format."""

from __future__ import annotations

from pathlib import Path

from bntools.core.artifact.reader import STACK, Artifact, open_path
from bntools.core.errors import BnError, bad_input
from bntools.core.methods.model_headers import Subject
from bntools.core.model import open as opening
from bntools.core.model.model import Model, Shards


def open_model_tensors(spec: str, budget: int | None = None) -> Subject:
    """A directory, artifact, GGUF or config.json by name, `-` for standard input; no weight is read.

    Raises BnError (exit 3) on JSON that is no config, and on what `open_model` refuses.
    """
    label = "standard input" if spec == opening.STDIN else spec
    opened = opening.open_input(spec, budget)
    if isinstance(opened, dict):
        if "kind" in opened and "model_type" not in opened:
            raise bad_input(f"{label} is a report (kind {opened['kind']!r}), not a config", "pipe the model")
        return Subject(label, opened)
    if isinstance(opened, Path) and opened.is_dir():
        return _directory(opened, spec)
    model = opening.as_model(opened, label)
    if isinstance(opened, Artifact) and opened.kind == STACK:
        names = [(name, opened.part_bytes(name)) for name in opened.names()]
        return Subject(label, model.config, names, _parameters(model))
    return _model(model, label)


def _directory(folder: Path, label: str) -> Subject:
    """A folder with a config alone is priced by its config."""
    config = opening.read_config(folder)
    if not any(folder.glob("*.safetensors")):
        return Subject(label, config)
    foreign = (config.get("quantization_config") or {}).get("quant_method") not in (None, "bntools")
    if foreign:  # the headers say what is stored; nothing need be understood
        shards = Shards([open_path(path) for path in opening.weight_files(folder)])
        return Subject(label, config, [(name, entry.nbytes) for name, entry in shards.entries.items()])
    return _model(opening.open_model(str(folder)), label)


def _model(model: Model, label: str) -> Subject:
    tensors = [(name, entry.nbytes) for name, entry in model.store.entries.items()]
    stored, known = model.store.nbytes(), sum(size for _, size in tensors)
    if not isinstance(model.store, Shards) and known:  # GGUF: entries are of the dense tensors
        tensors = [(name, round(size * stored / known)) for name, size in tensors]
    return Subject(label, model.config, tensors, _parameters(model))


def _parameters(model: Model) -> int | None:
    try:
        return sum(entry.numel for entry in model.entries.values())
    except BnError:
        return None
