"""Methods by name: each a function (Training, Settings, Progress) -> Head."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import cast

from bntools.core.progress import Progress
from bntools.tools.cbm_build.settings import Settings
from bntools.tools.cbm_build.training import Head, Training

Method = Callable[[Training, Settings, Progress], Head]


def method(name: str) -> Method:
    """The function `fit` of the file named after the method."""
    module = importlib.import_module(f"bntools.tools.cbm_build.methods.{name.replace('-', '_')}")
    return cast("Method", module.fit)
