"""What is run in parts: the command line, what decides its result, and the command line of each part."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bntools.core.errors import bad_input

FORMAT = 1


@dataclass(frozen=True)
class RunPlan:
    """argv: words after `bntools TOOL` that decide a part. units: the tool keeps finished units in a --work of its own.

    ledger: all parts share one --work folder and print a report, instead of writing an artifact each.
    """

    tool: str
    argv: tuple[str, ...]
    identity: Mapping[str, Any]
    jobs: int
    cwd: str
    cpus: int = 1
    units: bool = False
    ledger: bool = False

    @property
    def digest(self) -> str:
        """sha256 of what decides the parts."""
        decides = {"tool": self.tool, "jobs": self.jobs, "identity": self.identity}
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        return {"bntools.plan": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, told: Mapping[str, Any], label: str) -> RunPlan:
        """Raises BnError (exit 3) on what is no plan."""
        try:
            names = ("tool", "identity", "jobs", "cwd", "cpus", "units", "ledger")
            return cls(argv=tuple(told["argv"]), **{name: told[name] for name in names})
        except (KeyError, TypeError):
            raise bad_input(f"{label} is no plan of a run in parts", "take another --work DIR") from None

    def words(self, index: int, folder: str) -> list[str]:
        """The command line of one part, for `bntools`; folder: that of the run."""
        words = [self.tool, *self.argv, "--shard", f"{index}/{self.jobs}"]
        if self.ledger:
            words += ["--work", f"{folder}/units"]
        else:
            words += ["-o", f"{folder}/parts/{index}.safetensors", "--force"]
            words += ["--work", f"{folder}/units/{index}"] if self.units else []
        threads = any(word == "--threads" or word.startswith("--threads=") for word in self.argv)
        return words if threads else [*words, "--threads", str(self.cpus)]

    def by_hand(self, index: int, folder: str) -> str:
        """The same for a person to paste."""
        command = shlex.join(["bntools", *self.words(index, folder)])
        return f"cd {shlex.quote(self.cwd)} && {command}" + (
            f" > {shlex.quote(folder)}/parts/{index}.json" if self.ledger else ""
        )
