#!/usr/bin/env bash
# Runs a command with the interpreter of Lava named in its environment, or with the Lava rung left out.
set -euo pipefail
cd "$(dirname "$0")/.."
if python=$(scripts/lava-python.sh); then
    export SNNCOMPILE_LAVA_PYTHON=$python
else
    code=$?
    [ "$code" -eq 3 ] || exit "$code" # 3: there is no Python 3.10; anything else has said what failed
    echo "The Lava rung is left out: no Python 3.10 found (name one with SNNCOMPILE_LAVA_PYTHON)" >&2
    export SNNCOMPILE_NO_LAVA=1
fi
exec "$@"
