#!/bin/sh
# Runs uv: the one on PATH if it is new enough, else one of our own under .setup/, pinned by requirements/uv.txt.
#
# uv does not read pip's configuration. Where the machine has told pip which index, certificates or time limit to
# use and has not told uv, what pip knows is handed on.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
state=${SETUP_DIR:-$root/.setup}
own=$state/uv

new_enough() { # 0.5 or later
    version=$("$1" --version 2>/dev/null) || return 1
    version=${version#uv }
    major=${version%%.*}
    rest=${version#*.}
    [ "$major" -gt 0 ] || [ "${rest%%.*}" -ge 5 ]
}

uv=$(command -v uv 2>/dev/null) || uv=''
if [ -z "$uv" ] || ! new_enough "$uv"; then
    uv=$own/bin/uv
    # The folder is whole once uv answers: an interrupted installation is made again.
    if ! new_enough "$uv"; then
        python=$("$root/packaging/local/find-python.sh")
        rm -rf "$own"
        "$python" -m venv "$own"
        "$own/bin/pip" install --quiet --require-hashes --only-binary :all: -r "$root/requirements/uv.txt" \
            >"$state/uv.log" 2>&1 || {
            echo "setup: uv could not be installed: $(grep -i '^error' "$state/uv.log" | tail -n 1) (all of it: $state/uv.log)" >&2
            rm -rf "$own"
            exit 1
        }
    fi
fi

# pip prints `global.index-url='...'`, one a line, environment and files together; the last one counts.
pip_setting() {
    printf '%s\n' "$settings" | sed -n "s/^[^=]*\.$1='\(.*\)'\$/\1/p" | tail -n 1
}
settings=''
for pip in "$own/bin/pip" pip3 pip; do
    if command -v "$pip" >/dev/null 2>&1; then
        settings=$("$pip" config list 2>/dev/null) || settings=''
        break
    fi
done
hand_on() { # variable of uv, setting of pip
    value=$(pip_setting "$2")
    [ -z "$value" ] || export "$1=$value"
}
if [ -z "${UV_INDEX_URL:-}${UV_DEFAULT_INDEX:-}${UV_INDEX:-}${UV_CONFIG_FILE:-}" ] &&
    [ ! -e "${XDG_CONFIG_HOME:-$HOME/.config}/uv/uv.toml" ] && [ ! -e /etc/uv/uv.toml ]; then
    hand_on UV_INDEX_URL index-url
    hand_on UV_EXTRA_INDEX_URL extra-index-url
fi
[ -n "${SSL_CERT_FILE:-}" ] || hand_on SSL_CERT_FILE cert
[ -n "${UV_HTTP_TIMEOUT:-}" ] || hand_on UV_HTTP_TIMEOUT default-timeout

exec "$uv" "$@"
