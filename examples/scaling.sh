#!/bin/sh
# Does the exponent of a scaling law follow from the dimension of the data? Real runs of a small learner, 4/d expected.
# usage: scaling.sh [DIMENSION [FOLDER]]
set -eu
bntools=${BNTOOLS:-bntools}
python=${PYTHON:-python3}
dimension=${1:-3}
folder=$(mktemp -d "${2:-${TMPDIR:-/tmp}}/scaling.XXXXXX")
trap 'rm -rf "$folder"' EXIT

"$python" "$(dirname "$0")/interpolation_runs.py" "$dimension" > "$folder/runs.jsonl"
# the part of a data-dim report that counts; here the dimension is known
printf '{"kind": "data-dim", "dimension": {"value": %s, "low": %s, "high": %s}}\n' \
    "$dimension" "$dimension" "$dimension" > "$folder/dim.json"
"$bntools" scale-fit "$folder/runs.jsonl" --no-irreducible --data-dim "$folder/dim.json"
