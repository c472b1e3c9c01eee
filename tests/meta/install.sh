#!/bin/sh
# SPDX-License-Identifier: MIT
#
# What is installed is enough: an example compiles with the flags of
# pkg-config alone, runs, and draws in no other database.  uninstall takes
# away all of it and nothing else.
set -eu

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
root=$dir/root
prefix=/opt/outbox
lib=$root$prefix/lib
cd "$dir"

build()
{
    $MAKE -s -f "$TOP/Makefile" O="$dir/build" CC="$CC" CFLAGS=-O0 \
        prefix=$prefix DESTDIR="$root" "$@"
}

pkg()
{
    PKG_CONFIG_PATH=$lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$root \
        $PKG_CONFIG "$@"
}

files()
{
    (cd "$root" && find . ! -type d | sort)
}

mkdir -p "$root$prefix/include/outbox"
echo "not ours" >"$root$prefix/include/outbox/other.h"
files >before
build install
files

for example in publish quickstart; do
    $CC -o $example "$TOP/examples/$example.c" \
        $(pkg --cflags --libs outbox-sqlite)
    LD_LIBRARY_PATH=$lib ./$example
    LD_LIBRARY_PATH=$lib ldd ./$example >libraries
    grep liboutbox-sqlite.so.0 libraries
    if grep -E 'not found|libpq|rdkafka|rabbitmq|nats|hiredis|curl' libraries
    then
        exit 1
    fi
    # The same without our shared libraries.
    $CC -o $example-static "$TOP/examples/$example.c" \
        $(pkg --cflags outbox-sqlite) "$lib/liboutbox-sqlite.a" \
        "$lib/liboutbox.a" $(pkg --libs sqlite3) -pthread
    ./$example-static
done

test "$(pkg --modversion outbox-sqlite)" = "$(pkg --modversion outbox)"
pkg --print-requires outbox-sqlite | grep 'sqlite3 >= 3'
for page in outbox_publish outbox_publish_many; do
    test -s "$root$prefix/share/man/man3/$page.3"
done

build uninstall >/dev/null
files >after
diff before after
