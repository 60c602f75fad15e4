#!/bin/sh
# The toy of 'Opening the black box': 12 bits on the corners of an icosahedron, a label that no turn of it changes, and
# a small tanh network. All 4,096 patterns are measured, so that the entropies of the bins are exact.
# usage: black_box.sh [FOLDER] [EPOCHS]
set -eu
BNTOOLS=${BNTOOLS:-bntools}
PYTHON=${PYTHON:-python3}
out=${1:-black_box}
epochs=${2:-2000}
mkdir -p "$out"
"$PYTHON" - "$out/patterns.npz" <<'CODE'
import itertools
import sys
import numpy as np
golden = (1 + 5**0.5) / 2
turns = [np.roll([0, one, golden * other], shift) for shift in range(3) for one in (-1, 1) for other in (-1, 1)]
corners = np.array(turns) / np.hypot(1, golden)
bits = np.array(list(itertools.product([0, 1], repeat=12)))
signs = 2 * bits - 1
# What turns leave alone: how many bits are set and how far the set corners lie to one side.
lopsided = np.square(signs @ corners).sum(1) + 0.1 * np.abs(signs.sum(1))
label = (lopsided > np.median(lopsided)).astype(np.int64)
some = np.random.default_rng(0).permutation(4096)[:3560]  # of which record trains on eleven twelfths: 80 % of all
x = signs.astype(np.float32)
np.savez(sys.argv[1], train_x=x[some], train_y=label[some], test_x=x, test_y=label)
CODE
"$BNTOOLS" record fc:12,10,7,5,4,3,2 --data "$out/patterns.npz" --train "$epochs" --epochs log:20 --split test \
    --rows 4096 --lr 0.02 --batch 512 --seed 1 -f -o "$out/dumps/"
"$BNTOOLS" ib-analyze "$out/dumps/" --paper szt2017 --queries 4096 --units bits --plot "$out/plane.svg" --json
