"""How long work tells how far it is, and nothing else: the only definitions.

A method takes a `Step`, called with the count of units done since, or a `Progress` where it has several stretches of
work; it never prints. `bntools.terminal.progress` makes one from a session.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

Step = Callable[[int], None]
Progress = Callable[[str, int], contextlib.AbstractContextManager[Step]]


def no_step(count: int) -> None:
    """A step that nobody watches."""


def no_progress(what: str, total: int) -> contextlib.AbstractContextManager[Step]:
    """A progress that nobody watches."""
    return contextlib.nullcontext(no_step)
