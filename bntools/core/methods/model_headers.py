"""What is priced: a config, and the names and bytes of its tensors where there are headers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bntools.core.artifact.reader import parse_json


class Subject(NamedTuple):
    """A config, tensors (name, stored bytes) or None, and the parameters that the headers hold, where they say it."""

    label: str
    config: Mapping[str, Any]
    tensors: list[tuple[str, int]] | None = None
    parameters: int | None = None


def open_subject(spec: str, budget: int | None = None) -> Subject:
    """A directory, artifact, GGUF or config.json by name, `-` for standard input; no weight is read.

    A config.json by name is read without what opens models: that costs more than the answer. Raises BnError (exit 3)
    on JSON that is no config, and on what `open_model` refuses.
    """
    path = Path(spec)
    if budget is None and path.suffix == ".json" and path.is_file():
        config = parse_json(path.read_bytes(), dict, spec)
        if "model_type" in config:
            return Subject(spec, config)
    from bntools.core.methods.model_tensors import open_model_tensors

    return open_model_tensors(spec, budget)
