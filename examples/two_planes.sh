#!/bin/sh
# Information planes of handwritten digits in a tanh and a ReLU network, side by side, under noise relative to each
# layer and, for ReLU, under absolute noise, where the order of the layers breaks.
# usage: two_planes.sh [FOLDER] [MNIST] [EPOCHS]
set -eu
BNTOOLS=${BNTOOLS:-bntools}
PYTHON=${PYTHON:-python3}
out=${1:-planes}
mnist=${2:-$out/mnist}
epochs=${3:-60}
mkdir -p "$out"
[ -d "$mnist" ] || "$BNTOOLS" fetch mnist -o "$mnist/" > /dev/null
for activation in tanh relu; do
    "$BNTOOLS" record fc:784,256,20,20,20,10 --data "$mnist" --activation $activation --train "$epochs" --epochs log:14 \
        --limit 8000 --rows 2000 -f -o "$out/$activation/" > /dev/null
    "$BNTOOLS" ib-analyze "$out/$activation/" --gap --json | tee "$out/$activation.json"
done
"$BNTOOLS" ib-analyze "$out/relu/" --estimator mixture --noise absolute --sigma 1,2,4 --queries 500 --json
"$PYTHON" - "$out" <<'CODE'
import json
import sys
from pathlib import Path
from bntools.tools.ib_analyze.plot import draw
folder = Path(sys.argv[1])
draw({name: json.loads((folder / f"{name}.json").read_text()) for name in ("tanh", "relu")}, str(folder / "planes.svg"))
CODE
