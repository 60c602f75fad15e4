#!/bin/sh
# Digits at high, low and high resolution, beside full resolution and few steps of it; a plan; a field with an answer.
# usage: sh examples/three_resolutions.sh DIR
set -eu
bntools=${BNTOOLS:-bntools}
out=${1:?a directory to write to}
mkdir -p "$out"
"$bntools" sample-bottleneck --plan
"$bntools" sample-bottleneck --cond 3,7 -n 2 --steps 8 --stages 1@1,4@0.5,2@1 --compare --plot "$out/grid.png" -f \
    -o "$out/digits.safetensors"
printf '{"size": [8, 8], "beta": 2}' >"$out/spec.json"
"$bntools" sample-bottleneck "gaussian:$out/spec.json" --stages 40@1,40@0.5,40@1 --solver heun --hf wiener --json
