#!/bin/sh
# One bootstrap in parts on a Slurm cluster: the scheduler owns the array, the tool owns the part.
# usage: slurm.sh RUNS.jsonl FOLDER [PARTS]      (--on slurm does the same, waits and mends; see bntools-jobs(7))
set -eu
bntools=${BNTOOLS:-bntools}
runs=$1 folder=$2 parts=${3:-4}
mkdir -p "$folder/parts"
fit="'$bntools' scale-fit '$runs' --bootstrap 8000"

array=$(sbatch --parsable --array="0-$((parts - 1))" --requeue --output="$folder/%a.log" \
    --wrap "$fit --shard \$SLURM_ARRAY_TASK_ID/$parts -o '$folder/parts/'\$SLURM_ARRAY_TASK_ID.safetensors --force")
# Without kill-on-invalid-dep a join whose array has failed would stay pending for ever.
sbatch --parsable --dependency="afterok:$array" --kill-on-invalid-dep=yes --output="$folder/join.log" \
    --wrap "$fit --gather '$folder/parts' > '$folder/report.json'" > /dev/null
# What a waited job says of success is not to be trusted: the report that is there is.
while [ ! -s "$folder/report.json" ] && [ -n "$(squeue -h -n wrap -o %i)" ]; do sleep 2; done
cat "$folder/report.json"
