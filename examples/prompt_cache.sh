#!/bin/sh
# A key-value cache in three bits a value: planned, scored beside baselines, and a prompt's kept as a file.
# usage: prompt_cache.sh [FOLDER]
set -eu
bntools=${BNTOOLS:-bntools}
folder=$(mktemp -d "${1:-${TMPDIR:-/tmp}}/cache.XXXXXX")
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat > prompt.txt <<'END'
The wind had gone down at sunset, and the harbour lay still. Men came up from the boats with their nets on their
shoulders, and the women went to meet them. Nobody spoke of the storm. It had taken two boats in the night, and one
of them had not been found. An old man sat on the wall and looked at the water, as he had done every evening for
thirty years; he said that the sea gives back what it takes, but not to those who wait for it.
END
"$bntools" kv-compress default: --bits 3 --context 128 --calib-tokens 512 -q -o plan.json
"$bntools" eval default: --kv plan.json --window 128 --tokens 512
"$bntools" kv-compress default: --plan plan.json --text prompt.txt -q -o prompt.kv.safetensors
"$bntools" info prompt.kv.safetensors
