#!/bin/sh
# The MNIST table of Li et al. 2018 (arXiv 1804.08838): a report a line, in an evening on two cores. It can be stopped and
# started again: finished runs are kept in FOLDER. The paper's d_int90: 750, 290, 750, 1,400, 90,000.
# usage: intrinsic_dimension.sh FOLDER [MNIST] > table.jsonl
set -eu
bntools=${BNTOOLS:-bntools}
folder=$1
mnist=${2:-$folder/mnist}
mkdir -p "$folder"
[ -d "$mnist" ] || "$bntools" fetch mnist -o "$mnist/" > /dev/null

row() {
    name=$1
    shift
    "$bntools" intrinsic-dim --data "$mnist" "$@" --work "$folder/$name" --plot "$folder/$name.svg" --json
}

row fc --model fc:200,200
row lenet --model lenet
row fc-pixels --model fc:200,200 --shuffle pixels
row lenet-pixels --model lenet --shuffle pixels
row fc-labels --model fc:400,400,400,400,400 --shuffle labels --samples 0.1 --epochs "${LABEL_EPOCHS:-100}"
row widths --widths 100,200,400 --depths 1,2,3
