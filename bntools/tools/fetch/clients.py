"""Downloading one archive with the ordinary command of its registry."""

from __future__ import annotations

import importlib.util
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bntools.core.artifact.streams import scratch_folder
from bntools.core.errors import MISSING, BnError

_NOISE = ("complete log of this run", "npm notice", "[notice]", "npm warn")


def pip(source: str) -> list[str]:
    """The wheel alone, not installed: `pip download` of the Python that runs us. source: with options of its own."""
    if importlib.util.find_spec("pip") is None:
        raise BnError(f"pip is not installed for {sys.executable}", "python -m ensurepip", MISSING)
    options = "--no-deps --only-binary=:all: --no-cache-dir --disable-pip-version-check --no-input --quiet"
    return [
        sys.executable,
        "-m",
        "pip",
        "download",
        *options.split(),
        "--retries=2",
        "--dest=.",
        *source.split(),
    ]


def npm(source: str) -> list[str]:
    return [_program("npm"), "pack", "--ignore-scripts", "--loglevel=error", "--fetch-retries=1", source]


def apt(source: str) -> list[str]:
    # apt would drop its rights to a user who cannot write here, and warn; the sha256 is checked anyway
    options = ["-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=1"]
    return [_program("apt-get"), "download", "-qq", *options, source]


CLIENTS: dict[str, Callable[[str], list[str]]] = {"pip": pip, "npm": npm, "apt": apt}
_HINTS = {"apt": "is the network there? are the lists fresh? apt-get update"}


def download(client: str, source: str, suffix: str, path: Path) -> None:
    """Write the archive of `source` to `path`.

    Raises BnError: exit 5 when the client is not installed; exit 1 with its last message when it fails.
    """
    command = CLIENTS[client](source)
    with scratch_folder(path.parent, ".download.") as folder:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, errors="replace", check=False
        )
        archives = sorted(folder.glob(f"*{suffix}"))
        if done.returncode or len(archives) != 1:
            why = _last_line(done.stderr) or f"it ended with {done.returncode} and left {len(archives)} files"
            by_hand = f"is the network there? by hand: {shlex.join(command)}"
            raise BnError(f"{client} could not get {source}: {why}", _HINTS.get(client, by_hand))
        archives[0].replace(path)


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise BnError(
            f"{name} is not installed", f"install {name}, or fetch on a machine that has it", MISSING
        )
    return path


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines()]
    telling = [line for line in lines if line and not any(noise in line for noise in _NOISE)]
    return telling[-1][:200] if telling else ""
