#!/bin/sh
# What things cost before they run: the embedded model on a machine of one's own, an attention, a network on an FPGA.
# Needs no network. usage: costs.sh [FOLDER]
set -eu
bntools=${BNTOOLS:-bntools}
folder=$(mktemp -d "${1:-${TMPDIR:-/tmp}}/costs.XXXXXX")
trap 'rm -rf "$folder"' EXIT

cat > "$folder/board.json" <<'END'
{"name": "board", "peak": {"fp32": 1.5e11}, "bandwidth": 1.7e10, "memory": 8e9, "source": "an example"}
END
"$bntools" cost default: --device "$folder/board.json" --batch 1,8 --json
"$bntools" quantize default: --bits 3 -q | "$bntools" cost --device "$folder/board.json" --batch 1,8 --json
"$bntools" cost-attention --seq 64 --head-dim 8 --sram 512el --simulate lru,ideal --json

cat > "$folder/net.json" <<'END'
{"layers": [{"type": "dense", "inputs": 16, "outputs": 64, "reuse": 16}, {"type": "relu"},
            {"type": "dense", "outputs": 10, "reuse": 8}]}
END
"$bntools" cost-fpga "$folder/net.json" --part xc7z020 --clock 5 --json
