#!/bin/sh
# install.sh install|uninstall PREFIX DESTDIR: what `make install` and `make uninstall` do.
#
# The products go into an environment of their own under PREFIX/lib/modelmeter, at the versions and hashes of
# requirements/runtime.txt, without what only building needs. Files go below DESTDIR and name each other without it.
set -eu
umask 022

root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
action=$1 prefix=${2%/} dest=${3%/}
lib=$prefix/lib/modelmeter
units=$prefix/lib/systemd/system
users=$prefix/lib/sysusers.d
documents=$prefix/share/doc/modelmeter
configuration=/etc/modelmeter
commands="mmsensor mmpipeline mmrouter mmproto"
# The running system is only touched when it is what is being installed into.
live=no
[ -n "$dest" ] || [ ! -d /run/systemd/system ] || live=yes

fail() {
    echo "$action: $1" >&2
    exit "${2:-1}"
}
case $prefix in
/*) ;;
*) fail "PREFIX must be an absolute path, not '$prefix'" 2 ;;
esac
mkdir -p "$dest$prefix" "$dest$configuration" 2>/dev/null && [ -w "$dest$prefix" ] && [ -w "$dest$configuration" ] ||
    fail "no permission to write $dest$prefix and $dest$configuration: run as root, or choose PREFIX and DESTDIR" 77

for_prefix() { # the units name /usr/local; another PREFIX is written in
    sed "s#/usr/local/#$prefix/#g" "$1" >"$2"
    chmod 644 "$2"
}

before_linux_6_6() {
    kernel=$(uname -r)
    [ "$(printf '%s\n' 6.6 "${kernel%%[!0-9.]*}" | sort -V | head -n 1)" != 6.6 ]
}

install_all() {
    cd "$root"
    # The system's own Python, if it will do: a daemon's user cannot reach one in somebody's home folder.
    python=$(PYTHON="${PYTHON:-/usr/bin/python3 /usr/bin/python3.11}" packaging/local/find-python.sh)
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    log=.setup/install.log
    {
        .venv/bin/hatchling build -t wheel -d "$work" &&
            packaging/local/uv.sh venv --clear --relocatable --no-python-downloads --python "$python" "$dest$lib" &&
            wheel=$(echo "$work"/*.whl) &&
            VIRTUAL_ENV="$dest$lib" packaging/local/uv.sh pip install --compile-bytecode \
                --constraint requirements/runtime.txt "$wheel[sensor,pipeline,embedded,router,kafka,postgresql]"
    } >"$log" 2>&1 || fail "$(grep -v '^ *$' "$log" | tail -n 1 | sed 's/^ *//') (all of it: $log)"

    mkdir -p "$dest$prefix/bin" "$dest$units" "$dest$users" "$dest$documents" "$dest$configuration"
    for command in $commands; do
        ln -sf "../lib/modelmeter/bin/$command" "$dest$prefix/bin/$command"
    done
    for unit in systemd/*.service; do
        for_prefix "$unit" "$dest$units/$(basename "$unit")"
    done
    install -m 644 systemd/modelmeter.sysusers "$dest$users/modelmeter.conf"
    # The tree as it is, or the links between documents lead nowhere.
    install -m 644 README.md CHANGELOG.md LICENSE "$dest$documents"
    rm -rf "$dest$documents/docs"
    cp -R docs "$dest$documents/docs"
    chmod -R u=rwX,go=rX "$dest$documents/docs"
    for example in packaging/etc/*.yaml; do
        kept=$dest$configuration/$(basename "$example")
        # A configuration that somebody may have edited is never replaced.
        [ -e "$kept" ] || install -m 644 "$example" "$kept"
    done
    drop_in=$dest$units/modelmeter-sensor.service.d
    mkdir -p "$drop_in"
    rm -f "$drop_in"/*.conf
    if before_linux_6_6; then
        install -m 644 systemd/sensor-before-linux-6.6.conf "$drop_in"
    fi
    if [ $live = yes ]; then
        systemd-sysusers "$users/modelmeter.conf"
        systemctl daemon-reload
    fi
    echo "installed below $dest$prefix; configuration in $dest$configuration"
    [ -n "$dest" ] || echo "next: systemctl enable --now modelmeter-pipeline modelmeter-sensor modelmeter-router"
}

uninstall_all() {
    for unit in "$root"/systemd/*.service; do
        name=$(basename "$unit")
        if [ $live = yes ] && [ -e "$units/$name" ]; then
            systemctl disable --now "$name" || true
        fi
        rm -f "$dest$units/$name"
    done
    rm -rf "$dest$units/modelmeter-sensor.service.d"
    for command in $commands; do
        rm -f "$dest$prefix/bin/$command"
    done
    rm -rf "$dest$lib" "$dest$documents"
    rm -f "$dest$users/modelmeter.conf"
    if [ $live = yes ]; then
        systemctl daemon-reload
    fi
    echo "uninstalled; configuration ($dest$configuration) and data (/var/lib/modelmeter) stay"
}

case $action in
install) install_all ;;
uninstall) uninstall_all ;;
*) fail "install or uninstall, not '$action'" 2 ;;
esac
