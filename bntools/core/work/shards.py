"""One job cut into parts for many machines, and the parts joined again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bntools.core.artifact.reader import Artifact, open_path
from bntools.core.errors import bad_input, usage
from bntools.core.work.folder import first_difference


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`, counted from 0."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`I/N` with I from 0 to N - 1. Raises BnError (exit 2)."""
        first, slash, second = text.partition("/")
        if not (slash and first.isdecimal() and second.isdecimal() and int(first) < int(second)):
            raise usage(f"--shard {text!r} is not I/N with I from 0 to N - 1", "--shard 0/4")
        return cls(int(first), int(second))

    def of(self, sizes: Sequence[int]) -> range:
        """The jobs of this part: neighbours, with about 1/count of the total size; every job is in one part."""
        total, before = max(sum(sizes), 1), 0
        mine = []
        for index, size in enumerate(sizes):
            # Where the middle of a job lies decides.
            if min((2 * before + size) * self.count // (2 * total), self.count - 1) == self.index:
                mine.append(index)
            before += size
        return range(mine[0], mine[-1] + 1) if mine else range(0)


def describe(shard: Shard, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata `bntools.part` of a part's artifact; a task of a run in parts adds the digest of that run's plan."""
    plan = os.environ.get("BNTOOLS_PLAN")
    told = {"index": shard.index, "of": shard.count, "identity": dict(identity)}
    return {**told, "plan": plan} if plan else told


def open_parts(paths: Iterable[str], kind: str, identity: Mapping[str, Any]) -> list[Artifact]:
    """All parts of one job in their order, from files and folders of files.

    Raises BnError (exit 3) naming the file or the parts where one is missing, there twice, of another kind or begun
    with another identity.
    """
    parts: dict[int, Artifact] = {}
    count = 0
    for path in _files(paths):
        part = open_path(path)
        if part.kind != kind:
            raise bad_input(f"{path} is an artifact of kind {part.kind!r}, not {kind}", "--gather PARTS/")
        told = part.json("bntools.part", dict)
        index, of = told.get("index"), told.get("of")
        if not isinstance(index, int) or not isinstance(of, int) or not 0 <= index < of:
            raise bad_input(f"{path}: metadata bntools.part is damaged")
        wrong = first_difference(told.get("identity", {}), json.loads(json.dumps(identity)))
        if wrong:
            raise bad_input(f"{path} was made with {wrong}", "make it again with the options of this command")
        if count not in (0, of):
            raise bad_input(f"{path} is part {index}/{of}, others are of {count}", "gather parts of one run")
        if index in parts:
            raise bad_input(f"part {index}/{of} is there twice: {parts[index].label} and {path}")
        parts[index], count = part, of
    missing = [str(Shard(index, count)) for index in range(count) if index not in parts]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise bad_input(f"part {missing[0]}{more} is missing", f"run it: --shard {missing[0]}")
    return [parts[index] for index in range(count)]


def _files(paths: Iterable[str]) -> list[Path]:
    files: list[Path] = []
    for text in paths:
        path = Path(text)
        inside = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        if not inside:
            raise bad_input(f"no parts in {path}", "each is written by --shard I/N -o FILE.safetensors")
        files += inside
    return files
