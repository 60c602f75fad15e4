#!/bin/sh
# One line of JSON for each number of bits and each grouping: what a table or a plot is made from.
# usage: sweep.sh [MODEL [TOKENS]] > sweep.jsonl
set -eu
bntools=${BNTOOLS:-bntools}
model=${1:-default:}
tokens=${2:-8192}
file=$(mktemp "${TMPDIR:-/tmp}/sweep.XXXXXX")
trap 'rm -f "$file"' EXIT

for bits in 3 4; do
    for dim in oc ic ada; do
        "$bntools" quantize "$model" --bits "$bits" --dim "$dim" -q --force -o "$file" > /dev/null
        "$bntools" eval "$file" --tokens "$tokens" -q --json
    done
done
