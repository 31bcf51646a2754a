#!/bin/sh
# Installs what is missing of packaging/apt/LIST.txt. Asks apt-get for nothing if nothing is missing.
#
#   system-packages.sh [--print] LIST...       --print: only name what is missing
#
# Exit codes: 0 everything is there, 77 not root, 1 anything else; each with one line on standard error.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
lists=$here/../apt
state=${SETUP_DIR:-$here/../../.setup}

fail() { # code, line
    echo "setup: $2" >&2
    exit "$1"
}

print=no
if [ "${1:-}" = --print ]; then
    print=yes
    shift
fi

distribution=unknown version='' like='' pretty='an unknown system'
release=${OS_RELEASE:-/etc/os-release}
if [ -r "$release" ]; then
    # shellcheck disable=SC1090
    . "$release"
    distribution=${ID:-unknown} version=${VERSION_ID:-} like=${ID_LIKE:-} pretty=${PRETTY_NAME:-$ID}
fi

# The lines of the lists that count on this distribution, comments and conditions removed.
wanted() {
    for list in "$@"; do
        sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$lists/$list.txt"
    done | while IFS= read -r line; do
        case $line in
        *\[*\]*)
            condition=${line#*\[}
            condition=${condition%%\]*}
            case "$distribution $version" in
            "$condition" | "$condition "*) echo "${line%%\[*}" ;;
            esac
            ;;
        *) echo "$line" ;;
        esac
    done
}

installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Of each line of alternatives the ones that would do, where none is installed yet.
missing() {
    wanted "$@" | while IFS= read -r alternatives; do
        found=no
        for package in $(echo "$alternatives" | tr '|' ' '); do
            if installed "$package"; then
                found=yes
            fi
        done
        [ $found = yes ] || echo "$alternatives" | sed 's/ *$//'
    done
}

command -v dpkg-query >/dev/null 2>&1 || fail 1 "set-up knows Debian 12+ and Ubuntu 22.04+, and this is $pretty: \
install what packaging/apt/*.txt names under your distribution's own names, then \`make setup SYSTEM=ready\`"

absent=$(missing "$@")
if [ $print = yes ]; then
    [ -z "$absent" ] || echo "$absent"
    exit 0
fi
[ -n "$absent" ] || exit 0

[ "$(id -u)" = 0 ] || fail 77 "not root, and these distribution packages are missing: \
$(echo "$absent" | tr '\n' ',' | sed 's/ *,$//; s/,/, /g'). Run \`sudo make setup\` once"
case " $distribution $like " in
*" debian "* | *" ubuntu "*) ;;
*) fail 1 "set-up knows Debian 12+ and Ubuntu 22.04+, and this is $pretty" ;;
esac

mkdir -p "$state"
log=$state/apt.log
export DEBIAN_FRONTEND=noninteractive
# One source of several may be out of reach without harm: what decides is whether the packages can be had.
apt-get -o DPkg::Lock::Timeout=300 update >"$log" 2>&1 || true

set --
while IFS= read -r alternatives; do
    chosen=''
    for package in $(echo "$alternatives" | tr '|' ' '); do
        if [ -z "$chosen" ] && apt-cache show --no-all-versions "$package" >/dev/null 2>&1; then
            chosen=$package
        fi
    done
    [ -n "$chosen" ] || fail 1 "no package for '$alternatives' on $pretty: is there a network? (apt-get's own words: $log)"
    set -- "$@" "$chosen"
done <<LINES
$absent
LINES

echo "setup: installing $*"
apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@" >>"$log" 2>&1 ||
    fail 1 "apt-get could not install $*: $(grep '^E:' "$log" | tail -n 1) (all of it: $log)"
