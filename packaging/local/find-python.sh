#!/bin/sh
# Prints the Python to build on: $PYTHON, else the first of at least 3.11 that has the venv module.
set -eu

for name in ${PYTHON:-python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11}; do
    found=$(command -v "$name" 2>/dev/null) || continue
    if "$found" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        "$found" -c 'import sys; print(sys.executable)'
        exit 0
    fi
done
echo "setup: no Python of at least 3.11 with its venv module${PYTHON:+ at $PYTHON}: install python3.11 and" \
    "python3.11-venv, or name one with PYTHON=/path/to/python3" >&2
exit 1
