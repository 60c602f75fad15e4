#!/bin/sh
# Everything with the model inside the package: quantize, look, score, make dense again. Needs no network.
# usage: pipeline.sh [FOLDER]
set -eu
bntools=${BNTOOLS:-bntools}
folder=$(mktemp -d "${1:-${TMPDIR:-/tmp}}/pipeline.XXXXXX")
trap 'rm -rf "$folder"' EXIT

"$bntools" quantize --dim ada --bits 3 -q -o "$folder/q.safetensors" | "$bntools" info --json
"$bntools" eval "$folder/q.safetensors" --tokens 2000 --max-kl 0.5 --json
"$bntools" export "$folder/q.safetensors" -o "$folder/dense/"
"$bntools" eval "$folder/dense/" --against default: --tokens 2000 --json
