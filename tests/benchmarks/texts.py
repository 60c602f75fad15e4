"""Texts of four kinds for the quantization benchmarks: `eval.txt`, and `calib.txt` with nothing of it in common.

usage: texts.py OUT_DIR

Entries of the Jargon File, noun glosses of WordNet and the Debian Developer's Reference (Debian packages, through
apt-get), and prose: the evaluation text that ships. Of the prose nothing is in the calibration text, so that one kind
is not what the quantizer was fed with. The kinds alternate in passages, and every prefix holds all of them.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from textwrap import dedent

from bntools.core.text.documents import default_text

PACKAGES = ("jargon-text", "wordnet-base", "developers-reference")
PASSAGE = 2_350  # characters, 500 to 700 tokens
EVAL, CALIB = 4, 28  # passages of every kind
SIZES = f"{EVAL} passages a kind of {PASSAGE} characters to evaluate, {CALIB} to calibrate"


def unpack(folder: Path) -> Path:
    """The packages' /usr/share."""
    for package in PACKAGES:
        subprocess.run(["apt-get", "download", "-qq", package], cwd=folder, check=True)
        (file,) = folder.glob(f"{package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", file, folder], check=True)
    return folder / "usr" / "share"


def jargon(share: Path) -> str:
    """The lexicon: from its first entry on, without the appendices."""
    text = gzip.decompress((share / "doc/jargon-text/jargon.txt.gz").read_bytes()).decode()
    entries = text[re.search(r"^ +:\w", text, re.MULTILINE).start() :]
    return re.sub(r"\n{3,}", "\n\n", dedent(entries[: -len(entries) // 8]))


def glosses(share: Path) -> str:
    """Every seventh noun with what it means, one a line."""
    lines = (share / "wordnet/data.noun").read_text().splitlines()
    found = [
        re.match(r"\d+ \d+ n \w+ (\S+) .*\| (.*)", line)
        for line in lines[29::7]  # after the licence
    ]
    return "\n".join(f"{m[1].replace('_', ' ')}: {m[2].strip()}" for m in found if m)


def reference(share: Path) -> str:
    folder = share / "developers-reference" / "_sources"
    return "\n\n".join((folder / f"{name}.rst.txt").read_text() for name in ("pkgs", "resources", "tools"))


def passages(text: str, count: int, start: float, stop: float) -> list[str]:
    """`count` passages at equal distances between two fractions of a text, each from the start of a line."""
    first, room = int(start * len(text)), int((stop - start) * len(text)) // count
    if room < PASSAGE:
        raise ValueError(f"{count} passages of {PASSAGE} characters do not fit")
    starts = [text.index("\n", first + index * room) + 1 for index in range(count)]
    return [text[at : at + PASSAGE - 100].strip() for at in starts]


def texts() -> tuple[str, str]:
    """(evaluation text, calibration text); the last fifth of every source is evaluated on, the rest calibrates."""
    with tempfile.TemporaryDirectory() as scratch:
        share = unpack(Path(scratch))
        kinds = [jargon(share), glosses(share), reference(share)]
    calib = [passages(text, CALIB, 0, 0.75) for text in kinds]
    evaluated = [passages(text, EVAL, 0.8, 1) for text in kinds] + [
        passages(default_text("eval"), EVAL, 0, 1)
    ]
    return alternate(evaluated), alternate(calib)


def alternate(kinds: list[list[str]]) -> str:
    return "\n\n".join(passage for together in zip(*kinds, strict=True) for passage in together)


def write(folder: Path) -> tuple[Path, Path]:
    """Write both into a folder, and say what they are: (eval.txt, calib.txt)."""
    paths = folder / "eval.txt", folder / "calib.txt"
    for path, text in zip(paths, texts(), strict=True):
        path.write_text(text)
        print(f"{path.name}: {len(text)} characters, sha256 {hashlib.sha256(text.encode()).hexdigest()[:12]}")
    return paths


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print(__doc__)
        sys.exit()  # `make bench` runs every script without arguments
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    write(Path(sys.argv[1]))
