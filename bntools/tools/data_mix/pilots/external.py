"""Pilot runs by a command of the user's: it gets a file of drawn rows, and tells its metric in JSON."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bntools.core.errors import BnError, bad_input, usage
from bntools.tools.data_mix.laws.links import KINDS
from bntools.tools.data_mix.pilots.execute import Train
from bntools.tools.data_mix.pilots.plan import Pilot
from bntools.tools.data_mix.pilots.read import names_of
from bntools.tools.data_mix.pilots.sources import draw

_PLACES = ("{data}", "{seed}", "{metrics}", "{n}")
_HINT = 'it writes {"metric": 0.21, "kind": "error"} to {metrics}, or as its last line of output'


def check(command: str) -> None:
    """Refuse a command without {data}. Raises BnError (exit 2)."""
    if "{data}" not in command:
        raise usage("--train has no {data}", "--train 'python train.py --data {data} --out {metrics}'")


def command_trainer(command: str, files: Sequence[str], counts: Sequence[int], kind: str | None) -> Train:
    """Runs by a command on rows of the files, whose tensors are cut alike along their first axis."""
    names = names_of(files)

    def train(pilot: Pilot) -> dict[str, Any]:
        folder = Path(tempfile.mkdtemp(prefix="bntools-pilot-"))
        try:
            weights = np.array([pilot.weights[name] for name in names])
            drawn = draw(counts, weights, pilot.n, pilot.seed)
            _write(folder / "data.safetensors", files, drawn.rows)
            told = _run(command, folder, pilot)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        result = _checked(told, kind)
        return {**result, "epochs": round(drawn.epochs, 4), "counts": drawn.counts.tolist()}

    return train


def _write(path: Path, files: Sequence[str], rows: Sequence[Any]) -> None:
    """The drawn rows of every tensor that all sources have."""
    import torch
    from safetensors.torch import load_file, save_file

    parts: dict[str, list[torch.Tensor]] = {}
    for file, index in zip(files, rows, strict=True):
        for name, tensor in load_file(file).items():
            if tensor.ndim:
                parts.setdefault(name, []).append(tensor[torch.from_numpy(index)])
    whole = {
        name: torch.cat(tensors).contiguous() for name, tensors in parts.items() if len(tensors) == len(files)
    }
    if not whole:
        raise bad_input(
            "the sources have no tensor in common", "one tensor of rows under the same name in each"
        )
    save_file(whole, str(path))


def _run(command: str, folder: Path, pilot: Pilot) -> Any:
    """What the command tells. Raises BnError (exit 1) with its last line on standard error where it fails."""
    metrics = folder / "metrics.json"
    values = {"{data}": str(folder / "data.safetensors"), "{seed}": str(pilot.seed), "{metrics}": str(metrics),
              "{n}": str(pilot.n)}  # fmt: skip
    line = command
    for place in _PLACES:
        line = line.replace(place, shlex.quote(values[place]))
    done = subprocess.run(
        ["sh", "-c", line], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
        env={**os.environ, "BNTOOLS_WEIGHTS": json.dumps(dict(pilot.weights))},
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise BnError(
            f"--train failed on {_short(pilot)}: {last[:200]}", "the other pilots are kept; run it by hand"
        )
    text = metrics.read_text() if metrics.exists() else (done.stdout.strip().splitlines() or [""])[-1]
    try:
        return json.loads(text)
    except ValueError:
        raise BnError(f"--train told no JSON on {_short(pilot)}: {text[:80]!r}", _HINT) from None


def _short(pilot: Pilot) -> str:
    weights = " ".join(f"{name}={w:g}" for name, w in pilot.weights.items() if w)
    return f"the pilot {weights}, n={pilot.n}"


def _checked(told: Any, kind: str | None) -> dict[str, Any]:
    if not isinstance(told, Mapping) or not isinstance(told.get("metric"), int | float):
        raise BnError(f"--train told no metric: {json.dumps(told)[:80]}", _HINT)
    metric_kind = kind or told.get("kind")
    if metric_kind not in KINDS:
        raise BnError(
            f"--train told the kind {metric_kind!r}", f"one of {', '.join(KINDS)}, there or as --kind"
        )
    extra = {key: told[key] for key in ("domains", "trials") if key in told}
    metric = float(told["metric"])
    return {"metric": metric if np.isfinite(metric) else None, "kind": metric_kind, **extra}
