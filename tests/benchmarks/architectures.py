"""Every text class of transformers through the tools, tiny: works, refused with a reason, or fails.

usage: python tests/benchmarks/architectures.py [--part I/N] [--missing] [CLASS...]  renews architectures.json
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1])]
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from support import architectures  # noqa: E402

TABLE = Path(__file__).parents[1] / "architectures.json"
CPU_SECONDS, WALL_SECONDS = 240, 1800  # Inkling's smallest config takes longer
SMALL = "--calib-tokens 768 --calib calib.txt -q"
TOOLS = {
    "rounded": "quantize m --bits 8 --group-size 16 -o r.st",
    "gptq": f"quantize m --bits 4 --method gptq --group-size 16 -o g.st {SMALL}",
    "entropy": f"quantize m --code entropy --budget 4 -o e.st {SMALL}",
    "stack": f"stack-compress m --curve 0 --rescore 0 -o s.st {SMALL}",
    "eval": "eval m --text eval.txt --tokens 200 --window 64 --json -q",
    "hf": "export m -o dense/ -q",
    "gguf": "export m --to gguf -o m.gguf -q",
}


def words(line: str) -> tuple[int, str]:
    """Exit code and last message of a command line, in this process."""
    from bntools.cli import run

    kept = os.dup(2), os.dup(1)
    with tempfile.TemporaryFile() as messages, open("stdout", "wb") as out:
        sys.stderr.flush()
        os.dup2(messages.fileno(), 2)
        os.dup2(out.fileno(), 1)
        sys.argv[1:] = line.split()
        try:
            code = run(line.split())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(kept[0], 2)
            os.dup2(kept[1], 1)
        messages.seek(0)
        said = messages.read().decode(errors="replace")
        Path("messages").write_text(said)
        lines = [text for text in said.splitlines() if "error: " in text]
    return code, lines[-1].partition("error: ")[2] if lines else ""


def outcome(code: int, message: str) -> str:
    """`works`, `refused: ...` or `fails: ...`."""
    if code == 0:
        return "works"
    raw = code not in (1, 2, 3) or re.match(r"[A-Za-z]+(Error|Exception)\b", message) or not message
    return f"{'fails' if raw else 'refused'}: {message[:150]}"


def check(tool: str, model: Any) -> str:
    """What is wrong with a result that exit code 0 came with; empty if nothing is."""
    import torch

    from bntools.core.model.open import open_model

    if tool == "eval":
        return _check_loss(model)
    if tool not in ("rounded", "hf"):
        return ""
    before, after = open_model("m"), open_model("r.st" if tool == "rounded" else "dense")
    if set(before.entries) != set(after.entries):
        return f"tensors differ: {sorted(set(before.entries) ^ set(after.entries))[:2]}"
    for name in before.entries:
        w, v = before.tensor(name), after.tensor(name)
        same = torch.equal(w, v) if tool == "hf" else torch.allclose(w.float(), v.float(), atol=0.05)
        if not same:
            return f"{name} differs"
    return _check_choice(after) if tool == "rounded" else ""


def _check_choice(packed: Any) -> str:
    """Routers are kept, and what else repeats is coded."""
    from bntools.core.model.coverage import left_dense

    wrong = sorted(set(packed.packing) & set(packed.routers))
    if wrong:
        return f"the router {wrong[0]} is quantized"
    left = left_dense(packed, packed.packing)
    return "" if not left or left in Path("messages").read_text() else f"not a word of {left}"


def _check_loss(model: Any) -> str:
    """Against the loss that the class itself gives for the same windows."""
    import torch

    from bntools.core.model.open import open_model
    from bntools.core.text.tokens import open_tokenizer
    from bntools.tools.eval.evaluate import Settings, make_corpus

    report = json.loads(Path("stdout").read_text())
    opened = open_model("m")
    tokenizer = open_tokenizer(opened.files, opened.config, "m")
    corpus = make_corpus(opened, [Path("eval.txt").read_text()], tokenizer, Settings(window=64, tokens=200))
    total, count = 0.0, 0
    with torch.no_grad():
        for window in corpus.windows:
            logits = model(torch.tensor([window.ids[:-1]])).logits[0].float()
            targets = torch.tensor(window.ids[window.first :])
            total += float(
                torch.nn.functional.cross_entropy(logits[window.first - 1 :], targets, reduction="sum")
            )
            count += len(targets)
    found = report.get("nll")
    close = found is not None and abs(found - total / count) < 1e-3
    return "" if close else f"loss {found}, the class gives {total / count}"


def sweep(name: str, family: str) -> dict[str, str]:
    """The outcome of each tool for one class, in the folder at hand."""
    import torch

    from bntools.core.text.documents import default_text

    try:
        model = architectures.tiny(name)
        architectures.save(model, Path("m"))
        if family == "causal":
            with torch.no_grad():
                model(torch.arange(4, 68)[None])
    except BaseException as error:
        text = (str(error) or type(error).__name__).splitlines()[0]
        return {"family": family, "builds": f"no: {type(error).__name__}: {text[:110]}"}
    Path("built").touch()
    text = default_text("calib")
    Path("calib.txt").write_text(text[:6000])
    Path("eval.txt").write_text(text[8000:9500])
    found = {"family": family, "builds": "yes"}
    for tool, line in TOOLS.items():
        torch.manual_seed(0)
        found[tool] = outcome(*words(line))
        if found[tool] == "works":
            wrong = check(tool, model)
            found[tool] = f"fails: {wrong[:150]}" if wrong else "works"
    return found


def forked(name: str, family: str) -> dict[str, str]:
    """The same in a process of its own, ended after `CPU_SECONDS`."""
    with tempfile.TemporaryDirectory() as folder:
        child = os.fork()
        if not child:
            signal.setitimer(
                signal.ITIMER_PROF, CPU_SECONDS
            )  # of the processor: a busy machine fails no class
            signal.alarm(WALL_SECONDS)
            os.chdir(folder)
            try:
                Path("row.json").write_text(json.dumps(sweep(name, family)))
            except BaseException as error:
                Path("row.json").write_text(
                    json.dumps({"family": family, "builds": f"fails: {error!r}"[:160]})
                )
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        row = Path(folder, "row.json")
        if os.WTERMSIG(status) == signal.SIGPROF and not Path(folder, "built").exists():
            return {"family": family, "builds": f"no: not within {CPU_SECONDS} s of CPU"}
        return (
            json.loads(row.read_text())
            if row.exists()
            else {"family": family, "builds": f"fails: status {status}"}
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("classes", nargs="*")
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--missing", action="store_true", help="classes that the table has no row of yet")
    parser.add_argument("--failing", action="store_true", help="rows that say fails, again")
    given = parser.parse_args()
    rows = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    import numba  # noqa: F401
    import torch
    import transformers

    import bntools.cli  # noqa: F401

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    families = {name: family for family in architectures.MAPPINGS for name in architectures.classes(family)}
    index, parts = map(int, given.part.split("/"))
    chosen = given.classes or sorted(families)[index::parts]
    if given.missing:
        chosen = [name for name in chosen if name not in rows]
    if given.failing:
        chosen = [
            name
            for name in chosen
            if any(str(cell).startswith("fails") for cell in rows.get(name, {}).values())
        ]
    for name in chosen:
        began = time.monotonic()
        row = forked(name, families[name])
        rows = json.loads(TABLE.read_text()) if TABLE.exists() else {}
        rows[name] = row
        lines = [f"{json.dumps(key)}: {json.dumps(rows[key])}" for key in sorted(rows)]
        TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        counts = Counter(str(value).partition(":")[0] for value in row.values())
        print(f"{name:40} {time.monotonic() - began:5.1f} s {dict(counts)}", flush=True)
        for tool, cell in row.items():
            if cell.startswith("fails"):
                print(f"    {tool}: {cell}", flush=True)


if __name__ == "__main__":
    main()
