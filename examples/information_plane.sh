#!/bin/sh
# The information plane of a small tanh network on three blobs: recorded, measured, and how far to trust it.
set -eu
BNTOOLS=${BNTOOLS:-bntools}
PYTHON=${PYTHON:-python3}
out=${1:-plane}
mkdir -p "$out"
"$PYTHON" - "$out/blobs.npz" <<'CODE'
import sys
import numpy as np
rng = np.random.default_rng(0)
y = rng.integers(0, 3, 1500)
x = rng.standard_normal((1500, 10)).astype(np.float32)
x[:, 0] += 3 * (y == 1)
x[:, 1] += 3 * (y == 2)
np.savez(sys.argv[1], x=x, y=y)
CODE
"$BNTOOLS" record fc:16,8 --data "$out/blobs.npz" --train 20 --epochs log:6 --rows 600 -f -o "$out/dumps/"
"$BNTOOLS" ib-analyze "$out/dumps/" --plot "$out/plane.svg" --gap --json
"$BNTOOLS" mi "$out/dumps/epoch_00020.safetensors:epoch.20.layer.2" "$out/dumps/inputs.safetensors:label" --json
