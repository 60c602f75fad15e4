"""What `info` says of artifacts that are no models: one module a kind, found by the name of the kind.

A module `kinds/<kind>.py` (dashes as underscores) has `facts(source) -> dict`: names and values, from headers alone
where that is possible.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from bntools.core.artifact.reader import Artifact


def facts(source: Artifact) -> dict[str, Any]:
    """What the module of its kind says of an artifact; nothing where no module is named after the kind."""
    name = f"{__name__}.{source.kind.replace('-', '_')}"
    if not source.kind.replace("-", "_").isidentifier() or importlib.util.find_spec(name) is None:
        return {}
    return importlib.import_module(name).facts(source)
