#!/bin/sh
# What do queries like those to come bring an index of 24 bytes a vector? Vectors and queries are made up: the queries
# vary most where the vectors vary least.
# usage: vector_index.sh [FOLDER]
set -eu
bntools=${BNTOOLS:-bntools}
python=${PYTHON:-python3}
folder=$(mktemp -d "${1:-${TMPDIR:-/tmp}}/vectors.XXXXXX")
trap 'rm -rf "$folder"' EXIT

"$python" - "$folder" <<'END'
import sys
import numpy as np

random, folder = np.random.default_rng(0), sys.argv[1]
scale = np.geomspace(4, 0.2, 64)
np.save(f"{folder}/base.npy", (random.normal(size=(3000, 64)) * scale).astype(np.float32))
for name, count in (("learn", 600), ("test", 300)):
    np.save(f"{folder}/{name}.npy", (random.normal(size=(count, 64)) / scale).astype(np.float32))
END
for queries in "" "--queries $folder/learn.npy"; do
    # shellcheck disable=SC2086
    "$bntools" vec-index "$folder/base.npy" $queries --bytes 24 -q --force -o "$folder/base.vec" > "$folder/manifest"
    "$bntools" eval "$folder/base.vec" --data "$folder/test.npy" --data "$folder/base.npy" --json
done
