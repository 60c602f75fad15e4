#!/bin/sh
# From a wide table to the few columns that matter: a table with a linear and a square effect among 2,000 columns is
# screened, and the best columns are fitted. Prints the report of the screening and of the fit.
#
#     sh examples/screening.sh [FOLDER]
set -eu
bntools=${BNTOOLS:-bntools}
python=${PYTHON:-python3}
folder=${1:-.}

"$python" - "$folder/wide.npz" <<'END'
import sys

import numpy as np

rng = np.random.default_rng(0)
x = rng.standard_normal((300, 2000)).astype(np.float32)
y = x[:, 3] + (x[:, 70] ** 2 - 1) / 1.4 + 0.5 * rng.standard_normal(300)
np.savez(sys.argv[1], x=x, y=y)
END

"$bntools" screen "$folder/wide.npz" --target y --top 20 --json
"$bntools" screen "$folder/wide.npz" --target y --top 20 | "$bntools" sparse-fit - --target y --json
