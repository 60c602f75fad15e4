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
    names = "\n".join(f"concept {k}" for k in range(8)).encode()
    truth = {"concept": concept.astype(np.int8), "bntools.file/concepts.txt": np.frombuffer(names, np.uint8)}
    save_file(truth, f"{sys.argv[1]}/{name}-truth.safetensors")
save_file({"x": np.eye(8, dtype=np.float32)}, f"{sys.argv[1]}/concepts.safetensors")
# sequences of 6 windows with concepts 0 and 1 in one each: which comes first is the class
label = np.repeat(draw.integers(0, 2, 200), 6)
windows = 0.2 * draw.normal(size=(200, 6, 8))
for i in range(200):
    first, second = np.sort(draw.permutation(6)[:2])
    windows[i, first, label[6 * i]] += 1
    windows[i, second, 1 - label[6 * i]] += 1
x = windows.reshape(1200, 8).astype(np.float32)
save_file({"x": x, "label": label, "doc": np.repeat(np.arange(200), 6)}, f"{sys.argv[1]}/windows.safetensors")
PLANT

"$bntools" cbm-build "$folder/train.safetensors" --concepts "$folder/concepts.safetensors" --no-normalize --nec 2 -q \
    -o "$folder/cbm.safetensors"
"$bntools" eval "$folder/cbm.safetensors" --data "$folder/test.safetensors" --json
"$bntools" cbm-explain "$folder/cbm.safetensors" --data "$folder/test.safetensors" --row 3 --json
"$bntools" cbm-edit "$folder/cbm.safetensors" --prune "class 0:concept 0" --normalize -q |
    "$bntools" eval - --data "$folder/test.safetensors" --json

# the same concepts as energies (p of classes and concepts, one given the other), and as an order in time
"$bntools" cbm-build "$folder/train.safetensors" --method ecbm --truth "$folder/train-truth.safetensors" --no-normalize -q \
    --epochs 40 -o "$folder/ecbm.safetensors"
"$bntools" cbm-explain "$folder/ecbm.safetensors" --data "$folder/test.safetensors" --global --given "concept 0" --json
"$bntools" cbm-build "$folder/windows.safetensors" --concepts "$folder/concepts.safetensors" --method motif \
    --no-normalize --epochs 40 -q -o "$folder/motif.safetensors"
"$bntools" cbm-explain "$folder/motif.safetensors" --data "$folder/windows.safetensors" --row 3 --json
