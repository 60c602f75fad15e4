"""The one error family: what went wrong, what to try next, and the exit code it maps to."""

from __future__ import annotations

import importlib
from types import ModuleType

FAILED = 1
USAGE = 2
BAD_INPUT = 3
GATE = 4
MISSING = 5
INTERRUPTED = 130
BROKEN_PIPE = 141
_LONGEST = 600  # letters of a message


class BnError(Exception):
    """A failure the user can act on. `what` names the offending value, `hint` the next command to try."""

    def __init__(self, what: str, hint: str = "", code: int = FAILED) -> None:
        self.what = " ".join(what.splitlines())[:_LONGEST]  # other programs' messages may be of several lines
        super().__init__(self.what)
        self.hint = hint
        self.code = code


def bad_input(what: str, hint: str = "") -> BnError:
    """An input that is damaged, truncated or of the wrong kind (exit 3)."""
    return BnError(what, hint, BAD_INPUT)


def usage(what: str, hint: str = "") -> BnError:
    """Options that do not fit each other or the input (exit 2)."""
    return BnError(what, hint, USAGE)


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency; without it raise an error that names the extra (exit 5)."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = module.partition(".")[0]
        raise BnError(f"{missing} is not installed", f"pip install 'bntools[{extra}]'", MISSING) from error
