#!/usr/bin/env bash
# Builds .venv: make-venv.sh STAMP EXTRA... installs the extras and touches the stamp last. An installation that was
# interrupted is known by the marks it left and is done again from nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
stamp=$1
extras=$(IFS=,; echo "${*:2}")

say() { echo "== $*" >&2; }

if [ ! -f .venv/.base ] || [ -f .venv/.installing ]; then
    python=$(scripts/find-python.sh 3.11) || {
        echo "snncompile needs Python 3.11 with venv: none found on PATH or under pyenv" >&2
        exit 1
    }
    say "creating .venv with $python"
    rm -rf .venv
    "$python" -m venv .venv
    say "installing torch"
    # First and alone, with its exact version: resolved together with others, a larger build may be chosen.
    .venv/bin/python -m pip install -qq "$(grep '^torch==' constraints.txt)"
    touch .venv/.base
fi
rm -f "$stamp"
touch .venv/.installing
say "installing snncompile[$extras]"
.venv/bin/python -m pip install -qq -c constraints.txt -e ".[$extras]"
rm .venv/.installing
touch "$stamp"
