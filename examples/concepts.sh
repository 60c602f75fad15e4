#!/bin/sh
# Concepts between embeddings and classes: build, score, explain, correct, edit. Planted data, needs no network.
# usage: concepts.sh [FOLDER]
set -eu
bntools=${BNTOOLS:-bntools}
folder=$(mktemp -d "${1:-${TMPDIR:-/tmp}}/concepts.XXXXXX")
trap 'rm -rf "$folder"' EXIT

${PYTHON:-python3} - "$folder" << 'PLANT'
import sys
import numpy as np
from safetensors.numpy import save_file

# class c has concepts 2c and 2c + 1 in most of its rows; an embedding is its concepts and noise
for name, seed in (("train", 0), ("test", 1)):
    draw = np.random.default_rng(seed)
    label = draw.integers(0, 3, 400)
    concept = draw.random((400, 8)) < np.where(np.arange(8) // 2 == label[:, None], 0.85, 0.1)
    x = (concept + 0.6 * draw.normal(size=concept.shape)).astype(np.float32)
    save_file({"x": x, "label": label}, f"{sys.argv[1]}/{name}.safetensors")
save_file({"x": np.eye(8, dtype=np.float32)}, f"{sys.argv[1]}/concepts.safetensors")
PLANT

"$bntools" cbm-build "$folder/train.safetensors" --concepts "$folder/concepts.safetensors" --no-normalize --nec 2 -q \
    -o "$folder/cbm.safetensors"
"$bntools" eval "$folder/cbm.safetensors" --data "$folder/test.safetensors" --json
"$bntools" cbm-explain "$folder/cbm.safetensors" --data "$folder/test.safetensors" --row 3 --json
"$bntools" cbm-edit "$folder/cbm.safetensors" --prune "class 0:concept 0" --normalize -q |
    "$bntools" eval - --data "$folder/test.safetensors" --json
