"""The dimension of fine-tuning a language model on a small task with a format to learn, by the tool itself.

usage: fine_tuning.py [MODEL [FOLDER [OPTION...]]]    default: and a new folder; options go to `bntools intrinsic-dim`

The task is 300 log lines of one format, whose last word follows from a number in it. Prints the tool's command, its
scores, and the peak of memory. FOLDER keeps the task and finished runs: the same command again goes on.
"""

from __future__ import annotations

import json
import random
import resource
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from bntools.tools.intrinsic_dim.report import interval

GIVEN = (
    "--projection said --modules q_proj|v_proj --dims 200,1000 --window 32 --epochs 0.5 --seeds 1 --threads 1"
)


def task(count: int = 300) -> list[str]:
    """Lines such as `[007] pump B reads 63 bar -> HIGH`: the word is HIGH above 50."""
    draw = random.Random(0)
    lines = []
    for number in range(count):
        value = draw.randrange(100)
        word = "HIGH" if value > 50 else "ok"
        lines.append(
            f"[{number:03d}] {draw.choice(['pump', 'valve'])} {draw.choice('ABC')} reads {value} bar -> {word}"
        )
    return lines


def main() -> None:
    model = sys.argv[1] if sys.argv[1:] else "default:"
    folder = Path(sys.argv[2] if sys.argv[2:] else tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "task.jsonl"
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in task()))
    words = [
        "intrinsic-dim",
        "--model",
        model,
        "--data",
        str(path),
        "--work",
        str(folder / "work"),
        *shlex.split(GIVEN),
    ]
    words += sys.argv[3:]
    print("bntools " + shlex.join(words), flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "bntools", *words, "--json"], check=True, stdout=subprocess.PIPE
    )
    report = json.loads(done.stdout)
    base, found = report["baseline"], report["d_int90"]
    print(f"D {report['D']:,}; nats a token as it is {-report['runs'][0]['floor_test']:.3f}")
    print(
        f"fine-tuned in all D: {-base['mean']:.3f} at rate {base['lr']:.2g}; target {-report['target']:.3f}"
    )
    for point in report["curve"]:
        print(f"fine-tuned in d = {point['dim']:,}: {-point['mean']:.3f}")
    print(f"d_int90 {interval(found)}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(
        f"{len(report['runs'])} runs, {report['seconds']['runs']:,.0f} CPU seconds, {peak:.2f} GB at the peak"
    )


if __name__ == "__main__":
    main()
