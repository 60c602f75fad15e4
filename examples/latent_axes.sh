#!/bin/sh
# How many Gaussian axes points on a curved sheet need, what leaving out the others costs, and their codes.
# usage: latent_axes.sh [FOLDER]
set -eu
bntools=${BNTOOLS:-bntools}
python=${PYTHON:-python3}
folder=$(mktemp -d "${1:-${TMPDIR:-/tmp}}/axes.XXXXXX")
trap 'rm -rf "$folder"' EXIT

"$python" - "$folder" <<'END'
import sys
import numpy as np
rng = np.random.default_rng(0)
def sheet(rows):
    hidden = np.tanh(1.5 * rng.normal(size=(rows, 2)) @ inner)
    return (hidden @ outer + 0.05 * rng.normal(size=(rows, 16))).astype(np.float32)
inner, outer = rng.normal(size=(2, 32)), rng.normal(size=(32, 16)) / 6
np.save(f"{sys.argv[1]}/train.npy", sheet(2000))
np.save(f"{sys.argv[1]}/test.npy", sheet(500))
END
cd "$folder"
"$bntools" ard-fit train.npy --max-dim 8 --restarts 1 --epochs 20 -q -o vae.safetensors --plot fit.svg
"$bntools" eval vae.safetensors --data test.npy
"$bntools" ard-fit --encode test.npy vae.safetensors -o codes.safetensors
mv fit.svg "${1:-${TMPDIR:-/tmp}}/"
