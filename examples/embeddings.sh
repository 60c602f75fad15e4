#!/bin/sh
# From clicks to a small table: tables are fitted to clicks of users on items, compared at a quarter of the room, then
# the full one is compressed without data, scored, and exported as a torch module. Prints the reports.
#
#     sh examples/embeddings.sh [FOLDER]
set -eu
bntools=${BNTOOLS:-bntools}
python=${PYTHON:-python3}
folder=${1:-.}

"$python" - "$folder/clicks.csv" <<'END'
import sys

import numpy as np

rng = np.random.default_rng(0)
user, item = np.minimum(rng.zipf(1.4, 4000), 150), np.minimum(rng.zipf(1.4, 4000), 200)
logit = rng.standard_normal(151)[user] + rng.standard_normal(201)[item]
click = rng.random(4000) < 1 / (1 + np.exp(-logit))
with open(sys.argv[1], "w") as file:
    file.write("user,item,click\n")
    file.writelines(f"u{u},{i},{int(c)}\n" for u, i, c in zip(user, item, click))
END

"$bntools" embed-fit "$folder/clicks.csv" --target click --method spectral,unified,hash --budget 1/4 --lambda 30 --json
"$bntools" embed-fit "$folder/clicks.csv" --target click --lambda 30 -f -o "$folder/table.safetensors" > /dev/null
"$bntools" embed-compress "$folder/table.safetensors" --budget 1/8 --bits 8 -f -o "$folder/small.safetensors" --json
"$bntools" eval "$folder/small.safetensors" --data "$folder/clicks.csv" --json
"$bntools" export "$folder/small.safetensors" -f -o "$folder/module/"
