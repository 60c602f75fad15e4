#!/bin/sh
# Fetch SmolLM2-135M, quantize it, and see that it still writes sentences; first what rounding to 3 bits leaves of it.
# usage: demo.sh [FOLDER]    BNTOOLS names the command where it is not on the PATH, PYTHON the interpreter, TOKENS how many
# are scored and, four times as many, calibrated on.
set -eu
bntools=${BNTOOLS:-bntools}
folder=${1:-demo}
tokens=${TOKENS:-8192}
beside=$(dirname "$(command -v "$bntools")")/python
[ -x "$beside" ] || beside=python3
python=${PYTHON:-$beside}
mkdir -p "$folder"

[ -d "$folder/smollm2" ] || "$bntools" fetch smollm2 -o "$folder/smollm2/" --json
"$bntools" quantize "$folder/smollm2/" --per-ic --bits 3 | "$bntools" eval --tokens "$tokens"

"$bntools" quantize "$folder/smollm2/" --bits 4 --method gptq --grid weighted --group-size 64 --calib-tokens $((4 * tokens)) \
    -o "$folder/q.safetensors" --force
"$bntools" info "$folder/q.safetensors"
"$bntools" eval "$folder/q.safetensors" --tokens "$tokens" --json > "$folder/scores.json"
"$python" "$(dirname "$0")/sentences.py" "$folder/smollm2" "$folder/q.safetensors" "$folder/scores.json"
