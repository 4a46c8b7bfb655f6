#!/usr/bin/env bash
# The whole road on the digits that ship with the package: train, lower, prove, run, count. Writes into demo-out/.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:$PATH
out=demo-out

step() {
    printf '\n=== %s\n' "$1"
    shift
    printf '$ %s\n' "$*"
    "$@"
}

SECONDS=0
rm -rf "$out"
mkdir "$out"
step "Train with temporal efficient training" snncompile train models/digits-tet.toml -o "$out/ckpt.pt"
step "Lower to Loihi and prove every step" \
    snncompile export "$out/ckpt.pt" --target loihi -o "$out/loihi" --data digits:test
if [ -z "${SNNCOMPILE_NO_LAVA:-}" ]; then
    step "Run the bundle on Lava" snncompile run "$out/loihi" --data digits:test:32
fi
step "Export Loihi's integers as an ONNX step graph" \
    snncompile export "$out/ckpt.pt" --target loihi --device onnx -o "$out/onnx" --data digits:test:64
step "Run it on onnxruntime" snncompile run "$out/onnx" --data digits:test
step "Export NIR, run in every importer that is installed" \
    snncompile export "$out/ckpt.pt" --target nir --nir-profile snntorch -o "$out/nir" --data digits:test:16
step "Run what the file says" snncompile run "$out/nir" --data digits:test:16
step "Simulate the chip's integers on all test images" \
    snncompile simulate "$out/ckpt.pt" --target loihi --data digits:test
step "Count and price the operations" snncompile energy "$out/ckpt.pt" --data digits:test
printf '\n=== Done in %d min %d s; everything is in %s/\n' $((SECONDS / 60)) $((SECONDS % 60)) "$out"
