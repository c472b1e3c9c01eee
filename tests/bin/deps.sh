#!/bin/sh
# SPDX-License-Identifier: MIT
#
# deps.sh - is there what the build needs, and if not, get it.
#
#   deps.sh tell thing...       say what is missing and how to get it
#   deps.sh install thing...    get it with apt-get, as root or through sudo
#
# A thing is a command or a pkg-config package of the table below.  When all
# are there, this takes some milliseconds and prints nothing.
set -u

verb=$1
shift
cc=${CC:-cc}
pkg_config=${PKG_CONFIG:-pkg-config}

compiles()
{
    command -v "${cc%% *}" && echo '#include <stdio.h>' | $cc -E -
}

# Is there $1?  deb is what Debian calls it.
have()
{
    deb=$1
    case $1 in
    cc)      deb="gcc libc6-dev";  compiles ;;
    c++)     deb=g++;              command -v "${CXX:-c++}" ;;
    sqlite3) deb=libsqlite3-dev;   $pkg_config --exists 'sqlite3 >= 3.35' ;;
    jansson) deb=libjansson-dev;   $pkg_config --exists jansson ;;
    libpq)   deb=libpq-dev;        $pkg_config --exists 'libpq >= 14' ;;
    postgres) deb=postgresql;      sh "${0%/*}/pg-cluster" bin ;;
    pgbouncer)                     sh "${0%/*}/pg-pooler" bin ;;
    check)                         $pkg_config --exists check ;;
    pkg-config)                    command -v "$pkg_config" ;;
    *)                             command -v "$1" ;;
    esac >/dev/null 2>&1
}

missing()
{
    absent= debs=
    for thing do
        have "$thing" && continue
        absent="$absent $thing"
        debs="$debs $deb"
    done
    test -n "$absent"
}

refuse()
{
    echo "make: missing:$absent" >&2
    echo "make: on Debian, as root: apt-get install$debs" >&2
    exit 1
}

missing "$@" || exit 0
test "$verb" = install || refuse
command -v apt-get >/dev/null 2>&1 || refuse

sudo=
if [ "$(id -u)" -ne 0 ]; then
    sudo -n true 2>/dev/null || refuse
    sudo='sudo -n'
fi
echo "make: installing$debs"
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
{
    $sudo apt-get -q update &&
    $sudo env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -y --no-install-recommends install $debs
} >"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    refuse
}
missing "$@" && refuse
exit 0
