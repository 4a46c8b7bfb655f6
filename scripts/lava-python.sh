#!/usr/bin/env bash
# Prints the interpreter that has Lava, building .venv-lava where that is needed. Exit code 3: no Python 3.10.
#
# SNNCOMPILE_LAVA_PYTHON names an interpreter: with Lava in it, it is used as it is; without, .venv-lava is made from it.
set -euo pipefail
cd "$(dirname "$0")/.."
named=${SNNCOMPILE_LAVA_PYTHON:-}
stamp=.venv-lava/.ready

python=
if [ -n "$named" ]; then
    if "$named" -c 'import lava.magma' >/dev/null 2>&1 </dev/null; then
        command -v "$named"
        exit 0
    fi
    if ! "$named" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))' 2>/dev/null </dev/null; then
        echo "SNNCOMPILE_LAVA_PYTHON names $named, which has no Lava and is no Python 3.10" >&2
        exit 1
    fi
    python=$named
fi
if [ ! -f "$stamp" ] || [ constraints-lava.txt -nt "$stamp" ]; then
    [ -n "$python" ] || python=$(scripts/find-python.sh 3.10) || exit 3
    echo "== creating .venv-lava with $python" >&2
    rm -rf .venv-lava
    "$python" -m venv .venv-lava
    echo "== installing Lava" >&2
    .venv-lava/bin/python -m pip install -qq -c constraints-lava.txt lava-nc >&2
    .venv-lava/bin/python -c 'import lava.magma'
    touch "$stamp"
fi
echo "$PWD/.venv-lava/bin/python"
