#!/bin/sh
# Brings .venv to the locked packages: environment.sh runtime|dev|fuzz
#
# dev holds all of runtime, and fuzz all of dev. Once more was asked for, less means more too: `make up` after
# `make test` takes nothing away.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
state=${SETUP_DIR:-$root/.setup}
venv=$root/.venv
level=$1
mkdir -p "$state"

exec 9>"$state/environment.lock"
flock 9
held=$(cat "$state/level" 2>/dev/null) || held=''
# An environment that somebody else has made tells by what it holds.
if [ "$held" = fuzz ]; then
    level=fuzz
elif [ "$level" = runtime ] && { [ "$held" = dev ] || [ -x "$venv/bin/pytest" ]; }; then
    level=dev
fi

uv() {
    "$root/packaging/local/uv.sh" "$@"
}
quietly() { # what is being done, command...
    what=$1
    shift
    "$@" >"$state/uv.log" 2>&1 || {
        echo "setup: $what failed: $(grep -v '^ *$' "$state/uv.log" | tail -n 1 | sed 's/^ *//') (all of it: $state/uv.log)" >&2
        exit 1
    }
}

cd "$root"
if ! "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$("$root/packaging/local/find-python.sh")
    quietly "making .venv" uv venv --clear --no-python-downloads --python "$python" "$venv"
fi
export VIRTUAL_ENV="$venv"
echo "setup: .venv to requirements/$level.txt"
quietly "installing requirements/$level.txt" uv pip sync --require-hashes "requirements/$level.txt"
quietly "installing modelmeter into .venv" uv pip install --no-deps --no-build-isolation -e .
echo "$level" >"$state/level"
