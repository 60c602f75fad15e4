"""Divergence against size: the papers' methods, ours, the entropy code and other libraries; one table, one picture.

usage: quantize.py [MODEL_DIR] [--text FILE --calib FILE] [--only REGEX] [--work DIR] [--plot FILE.svg] [--peers PYTHON]

MODEL_DIR is best the dithered SmolLM2 that `dithered.py` makes (the original lies on a 4-bit grid), the texts those of
`texts.py`; without them it is the embedded model and the texts that ship. Each row is a file that is written, read back
and evaluated. bits: of the linear weights, all metadata counted as bytes on disk. MB: the whole file; of a peer, its
packed weights and everything else as it was. x G: KL relative to that of GPTQ, min-max, groups of 128, 3 bits per OC
(G). s, CPU s: quantizing, everything counted; GB: its peak of resident memory. Rows print as they finish.
--peers: a Python with hqq, optimum-quanto, torchao; what it lacks is left out with a note. --work keeps the sweeps that
rows share (the seconds of a sweep then count in the first of them only), and rows: the table can be made in pieces.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peers

from bntools.core.model.open import open_model

G = "GPTQ oc"
FINE = ("--method", "gptq", "--scales", 2, "--trellis", 5, "--refit", 2, "--compensate")
ENTROPY = ("--code", "entropy", "--budget")
BETWEEN = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"code": done.returncode, "out": done.stdout, "error": done.stderr[-400:],
                  "peak": used.ru_maxrss * 1024, "cpu": used.ru_utime + used.ru_stime}))
"""


@dataclass(frozen=True)
class Job:
    """A row: its name, and the options of `quantize`, or none for a peer."""

    name: str
    words: tuple[object, ...] = ()
    peer: bool = False


def jobs(small: bool) -> list[Job]:
    """Rows in the order they are made; a small model has no room for the sizes in megabytes."""
    papers = [
        Job(f"{method.upper()} {dim}", ("--method", method, "--dim", dim, "--bits", 3, "--group-size", 128))
        for method in ("gptq", "rtn")
        for dim in ("oc", "ic", "ada")
    ]
    ada = ("--method", "gptq", "--dim", "ada", "--bits", 3, "--group-size", 128)
    papers += [
        Job("GPTQ ada by output", (*ada, "--criterion", "output")),
        Job("GPTQ ada final", (*ada, "--choose", "final")),
        Job("GPTQ ada sequential", (*ada, "--sequential")),
    ]
    small_groups, weighted = ("--bits", 3, "--group-size", 64), ("--method", "gptq", "--grid", "weighted")
    ours = [
        Job("no text rounded", ("--calib", "none", "--method", "rtn", *small_groups)),
        Job("no text balanced", ("--calib", "none", "--balance", *small_groups)),
        Job("no text", ("--calib", "none", *small_groups)),
        Job("no text 3.25", ("--calib", "none", "--scales", 2, "--trellis", 5, "--budget", 3.25)),
        Job("a page of text", (*weighted, "--calib-tokens", 2048, *small_groups)),
        Job("a book of text", (*weighted, *small_groups)),
        Job("a book of text ada", (*weighted, *small_groups, "--dim", "ada", "--choose", "final")),
        Job("weighted rounding", ("--grid", "weighted", "--bits", 3, "--group-size", 128)),
        *(Job(f"fixed {bits}", (*FINE, "--budget", bits)) for bits in (2.6, 3.25, 3.45, 4.26)),
        Job("fixed 2.6 distilled", (*FINE, "--budget", 2.6, "--distill", 24)),
    ]
    sizes = [] if small else ["42MB", "48MB", "55MB", "62MB"]
    coded = [Job(f"entropy {budget}", (*ENTROPY, budget)) for budget in ("2.0", "2.6", "3.2", "4.2", *sizes)]
    coded += [
        Job(f"entropy {budget} alone", (*ENTROPY, budget, "--no-compensate")) for budget in ("2.0", "3.2")
    ]
    coded.append(Job("entropy 2.0 distilled", (*ENTROPY, "2.0", "--distill", 24)))
    return [*papers, *ours, *coded, *(Job(name, peer=True) for name in peers.ROWS)]


def measured(words: list[object]) -> dict[str, Any]:
    """Output, error, peak memory and seconds of a command, by a small process between."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", BETWEEN, *map(str, words)], check=True, capture_output=True, text=True
    )
    return {**json.loads(done.stdout), "seconds": time.monotonic() - began}


class Table:
    """Makes and prints rows."""

    def __init__(self, given: argparse.Namespace, scratch: Path) -> None:
        self.given, self.scratch, self.rows = given, scratch, list[dict[str, Any]]()
        self.bntools = [sys.executable, "-m", "bntools"]
        model = open_model(given.model)
        weights = sum(model.entries[name].nbytes for name in model.linears)
        self.rest = model.store.nbytes() - weights + sum(map(len, model.files.values()))
        self.original = (self.rest + weights) / 1e6
        self.kept = Path(given.work) / "rows.jsonl" if given.work else None
        print(
            f"{'':22} {'bits':>6} {'MB':>7} {'KL':>8} {'':7} {'x G':>6} {'ppl':>8} {'top-1':>6} "
            f"{'s':>6} {'CPU s':>6} {'GB':>5}",
            flush=True,
        )

    def row(self, job: Job) -> None:
        """One row, from the folder of kept ones if it is there, or a note why there is none."""
        for line in self.kept.read_text().splitlines() if self.kept and self.kept.exists() else ():
            kept = json.loads(line)
            if kept["name"] == job.name:
                self._show(kept)
                return
        self._make(job)

    def _make(self, job: Job) -> None:
        path = self.scratch / ("peer/" if job.peer else "q.safetensors")
        made = self._peer(job, path) if job.peer else self._ours(job, path)
        if made["code"]:
            print(f"{job.name:22} left out: {made['error'].strip().splitlines()[-1][:120]}", flush=True)
            return
        report = self._evaluated(path)
        if job.peer:
            told = json.loads(made["out"].strip().splitlines()[-1])
            linear, size = told["linear"], told["bytes"] + self.rest
            made["seconds"] = told["seconds"]
        else:
            linear, size = report["bits_per_weight"]["linear"], path.stat().st_size
        kl = report["kl"]
        row = {"name": job.name, "linear": linear, "megabytes": size / 1e6, "kl": kl["mean"], "se": kl["se"],
               "perplexity": report["perplexity"], "top1": report["top1"], "seconds": made["seconds"],
               "cpu": made["cpu"], "peak": made["peak"]}  # fmt: skip
        if self.kept:
            self.kept.parent.mkdir(parents=True, exist_ok=True)
            with self.kept.open("a") as out:
                out.write(json.dumps(row) + "\n")
        self._show(row)

    def _ours(self, job: Job, path: Path) -> dict[str, Any]:
        words = [*self.bntools, "quantize", self.given.model, *job.words, "-q", "-f", "-o", path]
        if self.given.calib and "none" not in job.words:
            words += ["--calib", self.given.calib]
        if self.given.work and "--budget" in job.words and "none" not in job.words:
            words += ["--work", Path(self.given.work) / ("entropy" if "entropy" in job.words else "fixed")]
        return measured(words)

    def _peer(self, job: Job, path: Path) -> dict[str, Any]:
        script = Path(peers.__file__)
        return measured([self.given.peers, script, job.name, _dense(self.given.model), path])

    def _evaluated(self, path: Path) -> dict[str, Any]:
        words = [*self.bntools, "eval", path, "--against", self.given.model, "--json"]
        if self.given.text:
            words += ["--text", self.given.text, "--window", "512"]
        done = subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True)
        return json.loads(done.stdout)

    def _show(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        base = next((one["kl"] for one in self.rows if one["name"] == G), None)
        ratio = f"{row['kl'] / base:6.3f}" if base else f"{'-':>6}"
        print(
            f"{row['name']:22} {row['linear']:6.3f} {row['megabytes']:7.1f} {row['kl']:8.4f} ±{row['se']:.4f} {ratio} "
            f"{row['perplexity']:8.2f} {100 * row['top1']:6.1f} {row['seconds']:6.0f} {row['cpu']:6.0f} "
            f"{row['peak'] / 1e9:5.2f}",
            flush=True,
        )


def _dense(model: str) -> str:
    """A directory that transformers opens."""
    from bntools.core.text.documents import tiny_model_dir

    return str(tiny_model_dir()) if model == "default:" else model


def draw(rows: list[dict[str, Any]], original: float, path: str) -> None:
    """KL, logarithmic, against the size of the whole file; original: MB, told by an arrow."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.5, 4.5))
    peer = tuple(name.split()[0] for name in peers.ROWS)
    families = (
        ("RTN", r"RTN", "v", "#56B4E9", ""),
        ("GPTQ", r"GPTQ (oc|ic)", "s", "#0072B2", ""),
        ("AdaDim-GPTQ", r"GPTQ ada", "P", "#CC79A7", ""),
        ("other libraries", rf"({'|'.join(peer)})", "x", "0.3", ""),
        ("without a text", r"no text", "^", "#E69F00", ""),
        ("fixed codes", r"fixed [\d.]+$", "D", "#009E73", "-"),
        ("entropy code, linears", r"entropy [\d.]+$", "o", "#D55E00", "-"),
        ("entropy code, embedding too", r"entropy \d+MB$", "o", "#D55E00", "--"),
    )
    for label, named, marker, colour, line in families:
        chosen = sorted(
            (row["megabytes"], row["kl"], row["linear"]) for row in rows if re.match(named, row["name"])
        )
        if not chosen:
            continue
        sizes, lost, bits = zip(*chosen, strict=True)
        axes.plot(sizes, lost, marker=marker, color=colour, linestyle=line or "none", label=label)
        for point in zip(sizes, lost, bits, strict=True) if line else ():
            axes.annotate(
                f"{point[2]:.2f}", point[:2], (-5, -9), textcoords="offset points", ha="right", fontsize=7
            )
    near, *_, far = sorted(row["megabytes"] for row in rows)
    axes.annotate(f"fp16: {original:.0f} MB", (1, 0.96), (0.84, 0.96), xycoords="axes fraction", fontsize=8,
                  ha="right", va="center", arrowprops={"arrowstyle": "->"})  # fmt: skip
    axes.set(yscale="log", xlabel="file (MB); numbers: bits per linear weight", xlim=(0.9 * near, 1.04 * far),
             ylabel="KL from the original (nats/token)")  # fmt: skip
    axes.yaxis.set_major_formatter("{x:g}")
    axes.legend(fontsize=7, loc="upper left")
    axes.grid(alpha=0.3)
    figure.savefig(path, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default="default:")
    parser.add_argument("--text")
    parser.add_argument("--calib")
    parser.add_argument("--only", default="", help="rows whose name matches; G is always made")
    parser.add_argument("--work")
    parser.add_argument("--plot")
    parser.add_argument("--peers", default=sys.executable)
    given = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as scratch:
        table = Table(given, Path(scratch))
        for job in jobs(given.model == "default:"):
            if job.name == G or re.search(given.only, job.name):
                table.row(job)
    if given.plot:
        draw(table.rows, table.original, given.plot)


if __name__ == "__main__":
    main()
