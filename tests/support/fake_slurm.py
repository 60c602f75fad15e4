"""sbatch, squeue, sacct, scancel and scontrol in one script of the standard library, as tests need them.

usage: fake_slurm.py NAME ARGUMENTS, with FAKE_SLURM a folder. Tasks of an array run one after another, each in a
process group of its own.

FAKE_FORGETS=1     squeue knows no job any more, as after MinJobAge
FAKE_REFUSES=TEXT  sbatch fails with TEXT; FAKE_REFUSES_AT=N: only from its N-th call on
FAKE_ENDS=STATE    a task that fails is said to have ended in STATE
FAKE_MAX=N         MaxArraySize
FAKE_IDLE=1        tasks are accepted and never run
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

HOME = Path(os.environ["FAKE_SLURM"])


def indices(text):
    for part in text.partition("%")[0].split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def sbatch(arguments):
    number = len(list(HOME.glob("job-*"))) + 1
    if "FAKE_REFUSES" in os.environ and number >= int(os.environ.get("FAKE_REFUSES_AT", 1)):
        sys.exit("sbatch: error: " + os.environ["FAKE_REFUSES"])
    script = Path(arguments[-1]).read_text()
    (HOME / f"script-{number}").write_text(script)
    job = HOME / f"job-{number}"
    job.mkdir()
    array = re.search(r"^#SBATCH --array=(.*)$", script, re.M)
    tasks = list(indices(array[1].strip("'"))) if array else [None]
    for task in tasks:
        (job / str(task)).write_text("PENDING")
    if "FAKE_IDLE" not in os.environ:
        subprocess.Popen(
            [sys.executable, "-S", __file__, "RUN", str(number), json.dumps(tasks)], start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    print(f"Submitted batch job {number}")


def run(arguments):
    number, tasks = arguments[0], json.loads(arguments[1])
    script = HOME / f"script-{number}"
    log = re.search(r"^#SBATCH --output=(.*)$", script.read_text(), re.M)[1].strip("'")
    for task in tasks:
        place = HOME / f"job-{number}" / str(task)
        if place.read_text() == "CANCELLED":
            continue
        place.write_text("RUNNING")
        here = {**os.environ, "SLURM_ARRAY_TASK_ID": str(task), "SLURM_JOB_ID": number}
        name = log.replace("%A", number).replace("%a", str(task)).replace("%j", number)
        with open(name, "ab") as file:
            code = subprocess.run(
                ["sh", script], env=here, stdout=file, stderr=file, start_new_session=True
            ).returncode
        place.write_text(os.environ.get("FAKE_ENDS", "FAILED") if code else "COMPLETED")


def squeue(arguments):
    if "FAKE_FORGETS" in os.environ:
        sys.exit("slurm_load_jobs error: Invalid job id specified")
    chosen = arguments[arguments.index("-j") + 1].split(",") if "-j" in arguments else []
    named = arguments[arguments.index("-n") + 1] if "-n" in arguments else None
    for job in sorted(HOME.glob("job-*")):
        number = job.name[4:]
        if named is not None and f"--job-name={named}\n" not in (HOME / f"script-{number}").read_text():
            continue
        if named is None and number not in chosen:
            continue
        for place in job.iterdir():
            print(f"{number}_{place.name}|{place.read_text()}|None")


def scancel(arguments):
    for number in arguments:
        for place in (HOME / f"job-{number}").iterdir():
            if place.read_text() in ("PENDING", "RUNNING"):
                place.write_text("CANCELLED")


def main(name, arguments):
    if name != "RUN":
        with open(HOME / "calls", "a") as file:
            file.write(" ".join([name, *arguments]) + "\n")
    if name == "sacct":
        sys.exit("Slurm accounting storage is disabled")
    if name == "scontrol":
        print(f"MaxArraySize            = {os.environ.get('FAKE_MAX', 1001)}")
        return
    {"sbatch": sbatch, "RUN": run, "squeue": squeue, "scancel": scancel}[name](arguments)


main(sys.argv[1], sys.argv[2:])
