#!/bin/sh
# The MNIST table of Li et al. 2018 (arXiv 1804.08838) and a grid of widths and depths: a report a line, in an evening on
# two cores, and a picture of each. It can be stopped and started again: finished runs are kept in FOLDER.
# `python tests/benchmarks/intrinsic_dim.py table.jsonl` prints the reports beside the paper's numbers.
# usage: intrinsic_dimension.sh FOLDER [MNIST [ROW...]] > table.jsonl
set -eu
bntools=${BNTOOLS:-bntools}
folder=$1
mnist=${2:-$folder/mnist}
shift "$(( $# < 2 ? $# : 2 ))"
rows=${*:-fc lenet fc-pixels lenet-pixels fc-labels widths cartpole pendulum}
mkdir -p "$folder"

measure() {
    name=$1
    shift
    "$bntools" intrinsic-dim "$@" --work "$folder/$name" --plot "$folder/$name.svg" --json
}

for row in $rows; do
    case $row in
        cartpole | pendulum) measure "$row" --env "$row"; continue ;;
    esac
    [ -d "$mnist" ] || "$bntools" fetch mnist -o "$mnist/" > /dev/null
    case $row in
        fc) measure fc --data "$mnist" --model fc:200,200 ;;
        lenet) measure lenet --data "$mnist" --model lenet ;;
        fc-pixels) measure fc-pixels --data "$mnist" --model fc:200,200 --shuffle pixels ;;
        lenet-pixels) measure lenet-pixels --data "$mnist" --model lenet --shuffle pixels ;;
        # Reduced: a tenth of the digits, four dimensions, two learning rates and one seed in place of a search.
        fc-labels)
            # shellcheck disable=SC2086  # several words
            measure fc-labels --data "$mnist" --model fc:400,400,400,400,400 --shuffle labels --samples 0.1 --seeds 1 \
                ${LABELS:---epochs 60 --dims 2000,4000,8000,16000 --lr 0.01,0.03} ;;
        # Reduced: two seeds.
        widths) measure widths --data "$mnist" --widths 100,200,400 --depths 1,2,3 --seeds 2 ;;
        *) echo "no row $row" >&2; exit 2 ;;
    esac
done
