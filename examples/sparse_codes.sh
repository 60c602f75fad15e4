#!/bin/sh
# A sparse dictionary of the embedded model's states: what its codes explain, what the model loses, one latent turned up.
# usage: sparse_codes.sh [FOLDER]
set -eu
bntools=${BNTOOLS:-bntools}
folder=$(mktemp -d "${1:-${TMPDIR:-/tmp}}/codes.XXXXXX")
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat > text.txt <<'END'
The wind had gone down at sunset, and the harbour lay still. Men came up from the boats with their nets on their
shoulders, and the women went to meet them. Nobody spoke of the storm. It had taken two boats in the night, and one
of them had not been found. An old man sat on the wall and looked at the water, as he had done every evening for
thirty years; he said that the sea gives back what it takes, but not to those who wait for it.
END
"$bntools" embed default: --text text.txt --layer 1 -o acts.safetensors -q > acts.json
"$bntools" sparse-code acts.safetensors --latents 96 --k 8 --pursuit 32 --batch 64 --tokens 8000 -q -o sae.safetensors
"$bntools" eval sae.safetensors --data acts.safetensors --model default: --text text.txt --tokens 128
"$bntools" sparse-encode sae.safetensors acts.safetensors -q -o codes.safetensors
"$bntools" sparse-decode sae.safetensors codes.safetensors --set 7=+8 -q -o steered.safetensors
