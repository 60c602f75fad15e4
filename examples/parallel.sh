#!/bin/sh
# One bootstrap in parts by any engine that runs command lines: here xargs, or GNU parallel alike.
# usage: parallel.sh RUNS.jsonl FOLDER [PARTS [AT_A_TIME]]
set -eu
bntools=${BNTOOLS:-bntools}
runs=$1 folder=$2 parts=${3:-4} many=${4:-2}
mkdir -p "$folder/parts"

# A part that exists is whole, so that a second run makes only what is missing.
index=0
while [ "$index" -lt "$parts" ]; do
    [ -e "$folder/parts/$index.safetensors" ] || echo "$index"
    index=$((index + 1))
done | xargs -P "$many" -I {} "$bntools" scale-fit "$runs" --bootstrap 8000 --threads 1 -q \
    --shard "{}/$parts" -o "$folder/parts/{}.safetensors" > /dev/null
"$bntools" scale-fit "$runs" --bootstrap 8000 --gather "$folder/parts"
