#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The .sym files, the headers and the libraries name the same functions, and
# what is not exported begins with ob_.
set -u
cd "$TOP" || exit 1

status=0
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT

differ()
{
    diff -u "$1" "$2" && return
    echo "$3" >&2
    status=1
}

# What this header declares, and what it includes of ours.
declared()
{
    echo "#include <outbox/$1>" | $CC -Iinclude -E -P - | tr '\n' ' ' |
        sed 's/;/;\n/g' | grep -v typedef |
        grep -oE '\<(outbox|inbox)_[a-z0-9_]+ *\([^*]' |
        sed 's/ *(.*//' | LC_ALL=C sort
}

# HEADERS holds words as outbox-sqlite:sqlite.h.  Names of liboutbox come with
# outbox.h into every other header.
headers_agree()
{
    for header in $HEADERS; do
        test "${header%:*}" = "$1" && declared "${header#*:}"
    done | LC_ALL=C sort -u >"$dir/declared"
    if [ "$1" != outbox ]; then
        LC_ALL=C comm -23 "$dir/declared" lib/outbox.sym >"$dir/own"
        mv "$dir/own" "$dir/declared"
    fi
    differ "lib/$1.sym" "$dir/declared" "$1: .sym and headers differ"
}

defined()
{
    nm -g --defined-only "$@" | awk 'NF == 3 && $2 != "A" { print $3 }' |
        sed 's/@.*//' | LC_ALL=C sort -u
}

for part in $PARTS; do
    headers_agree "$part"
    differ "lib/$part.sym" - "$part: .sym is not sorted" <<END
$(LC_ALL=C sort -u "lib/$part.sym")
END
    defined -D "$BUILD/lib$part.so" >"$dir/so"
    differ "lib/$part.sym" "$dir/so" "$part: .sym and library differ"
    readelf -d "$BUILD/lib$part.so" | grep -q "soname: .lib$part.so.0\]" || {
        echo "$part: no soname lib$part.so.0" >&2
        status=1
    }
    if defined "$BUILD/lib$part.a" | grep -vxF -f "lib/$part.sym" |
        grep -v '^ob_'
    then
        echo "$part: not exported, and without ob_" >&2
        status=1
    fi
done
exit $status
