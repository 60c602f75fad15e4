"""Bottlenecks of any kind by what they are: reading, writing, and the parts that tools ask of all of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from bntools.core.artifact.reader import Artifact
from bntools.core.artifact.writer import Writer
from bntools.core.methods.cbm import file

_FILES = {"Bottleneck": "file", "EnergyModel": "energy.file", "SequenceModel": "sequence.file"}
_KINDS = {"cbm": "file", "ecbm": "energy.file", "motif": "sequence.file"}


class Format(NamedTuple):
    """The kind of an artifact, and how a model is written to one."""

    kind: str
    write: Callable[[Writer, Any], None]


def format_of(model: Any) -> Format:
    """How a bottleneck is stored."""
    module = importlib.import_module(f"bntools.core.methods.cbm.{_FILES[type(model).__name__]}")
    return Format(module.KIND, module.write)


def read(source: Artifact) -> Any:
    """The bottleneck of an artifact of kind cbm, ecbm or motif. Raises BnError (exit 3) for another one."""
    name = _KINDS.get(source.kind)
    module = file if name is None else importlib.import_module(f"bntools.core.methods.cbm.{name}")
    return module.read(source)


def scores_of(model: Any) -> Callable[..., dict[str, Any]]:
    """What a bottleneck on labelled rows is scored by: a function of the model, the rows and annotations or None."""
    place = _FILES[type(model).__name__].replace("file", "score")
    return importlib.import_module(f"bntools.core.methods.cbm.{place}").score
