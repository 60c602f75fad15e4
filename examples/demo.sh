#!/bin/sh
# Fetch SmolLM2-135M, quantize it per input channel to 3 bits, and evaluate what is left of it.
# usage: demo.sh [FOLDER]    BNTOOLS names the command where it is not on the PATH.
set -eu
bntools=${BNTOOLS:-bntools}
folder=${1:-demo}
mkdir -p "$folder"

[ -d "$folder/smollm2" ] || "$bntools" fetch smollm2 -o "$folder/smollm2/" --json
"$bntools" quantize "$folder/smollm2/" --per-ic --bits 3 -o "$folder/q.safetensors" --force
"$bntools" info "$folder/q.safetensors"
"$bntools" eval "$folder/q.safetensors"
