#!/bin/sh
# Which mixture of three sources to buy: pilots by the built-in head at three sizes, the mixture for a larger one, the
# runs worth making next, and the same from the table of runs alone. Prints the report of both.
#
#     sh examples/mixture.sh [FOLDER]
set -eu
bntools=${BNTOOLS:-bntools}
python=${PYTHON:-python3}
folder=${1:-.}

"$python" - "$folder" <<'END'
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

rng = np.random.default_rng(0)
centres = 1.3 * rng.standard_normal((6, 8))


def rows(shares, count, redrawn=0.0):
    y = rng.choice(6, count, p=shares)
    x = centres[y] + rng.standard_normal((count, 8))
    wrong = rng.random(count) < redrawn
    y[wrong] = rng.integers(0, 6, int(wrong.sum()))
    return {"x": x.astype(np.float32), "y": y}


folder = Path(sys.argv[1])
(folder / "sources").mkdir(exist_ok=True)
even, first, last = [1 / 6] * 6, [0.32, 0.32, 0.32, 0.02, 0.01, 0.01], [0.01, 0.01, 0.02, 0.32, 0.32, 0.32]
save_file(rows(first, 4000), folder / "sources" / "books.safetensors")
save_file(rows(last, 4000), folder / "sources" / "code.safetensors")
save_file(rows(even, 4000, redrawn=0.4), folder / "sources" / "web.safetensors")
save_file(rows(even, 4000), folder / "val.safetensors")
END

"$bntools" data-mix "$folder/sources" --val "$folder/val.safetensors" --sizes 50,100,200 --runs 12 --l2 1 --at 1600 \
    --work "$folder/pilots" --json

# what is kept of each pilot is a line of a table of runs
cat "$folder"/pilots/pilots/*.json | "$bntools" data-mix - --at 1600 --next 3 --max web=0.2 --json
