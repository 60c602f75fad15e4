"""Finished runs on disk, a line each: what makes a search resumable and its parts joinable."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path

import numpy as np

from bntools.core.errors import bad_input, usage
from bntools.core.work.shards import Shard
from bntools.tools.intrinsic_dim.runs import Run, from_record


class Ledger:
    """The runs of one folder, by key; without a folder they are kept in memory only.

    `runs.jsonl` (of part I of N: `runs-I-of-N.jsonl`) gets one line a run, written whole and flushed to disk; the
    end point of each run is `points/KEY.npy`. A line cut short by a kill is skipped.
    """

    def __init__(self, folder: Path | None, part: Shard | None = None) -> None:
        self.runs: dict[str, Run] = {}
        self._file: Path | None = None
        self._folder = folder
        if folder is None:
            return
        try:
            (folder / "points").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise usage(
                f"cannot use --work {folder}: {error.strerror}", "name a folder you may write"
            ) from None
        self._file = folder / (f"runs-{part.index}-of-{part.count}.jsonl" if part else "runs.jsonl")
        for path in sorted(folder.glob("runs*.jsonl")):
            self._read(path)

    def _read(self, path: Path) -> None:
        for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError:
                continue  # cut short
            try:
                self.runs[record["key"]] = from_record(record, self._point(record["key"]))
            except (KeyError, TypeError, ValueError):
                raise bad_input(f"{path}, line {number} is no run", "was the file edited?") from None

    def _point(self, key: str) -> object:
        with contextlib.suppress(OSError, ValueError):
            return np.load(self._path(key), allow_pickle=False)
        return None

    def _path(self, key: str) -> Path:
        assert self._folder is not None
        if not key.isalnum():
            raise ValueError(key)
        return self._folder / "points" / f"{key}.npy"

    def add(self, run: Run) -> None:
        """Keep a finished run: first its end point, then its line."""
        self.runs[run.key] = run
        if self._file is None:
            return
        if run.outcome.point is not None:
            _replace(self._path(run.key), run.outcome.point)
        line = json.dumps(run.record()).encode() + b"\n"
        fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                line = b"\n" + line
            os.write(fd, line)
            os.fsync(fd)
        finally:
            os.close(fd)


def _replace(path: Path, point: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, point, allow_pickle=False)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(buffer.getvalue())
    os.replace(temporary, path)
