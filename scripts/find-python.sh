#!/usr/bin/env bash
# Prints the path of an interpreter of the given version, for example 3.11, that can make virtual environments.
#
# Every candidate is run before it is believed: the shims of pyenv stand on PATH for versions that pyenv does not select,
# and some distributions ship a Python without ensurepip.
set -u
version=$1
pyenv_root=${PYENV_ROOT:-$HOME/.pyenv}
probe="import ensurepip, sys, venv
if sys.version_info[:2] != tuple(map(int, '$version'.split('.'))): sys.exit(1)
print(sys.executable)"

for candidate in "python$version" python3 python "$pyenv_root"/versions/"$version"*/bin/"python$version"; do
    if found=$("$candidate" -c "$probe" 2>/dev/null </dev/null) && [ -n "$found" ]; then
        echo "$found"
        exit 0
    fi
done
exit 1
