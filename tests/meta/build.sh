#!/bin/sh
# SPDX-License-Identifier: MIT
#
# make, run in a directory that is not the tree's, builds there and writes
# nothing to the tree; it does again what a changed flag, prefix or header
# touches, and nothing else.  What is installed is of the parts that are built.
set -eu

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cp -R "$TOP/Makefile" "$TOP/lib" "$TOP/include" "$TOP/man" "$dir"
mkdir -p "$dir/tests" "$dir/elsewhere"
cp -R "$TOP/tests/bin" "$dir/tests"
cd "$dir/elsewhere"

# done_for argument...: what make says that it does.
done_for()
{
    $MAKE -f "$dir/Makefile" --no-print-directory PARTS=outbox CC="$CC" \
        CFLAGS=-O0 "$@" >said
    cat said
}

# expects n pattern: so many lines of that kind, and no others.
expects()
{
    test "$(grep -c "$2" said)" -eq "$1" && test "$(wc -l <said)" -eq "$1" ||
        { echo "expected $1 lines of: $2"; exit 1; }
}

(cd "$dir" && find . -name elsewhere -prune -o -print | sort) >before
done_for
test -e .build/plain/liboutbox.so.0
done_for
expects 0 .
done_for prefix=/opt
expects 1 'GEN *outbox.pc'
grep -qx 'prefix=/opt' .build/plain/outbox.pc
done_for prefix=/opt LDFLAGS=-Wl,-O1
expects 1 'LD *liboutbox.so'
done_for prefix=/opt LDFLAGS=-Wl,-O1 SANITIZE=undefined >/dev/null
test -e .build/undefined/liboutbox.a
touch "$dir/lib/core/window.h"
done_for prefix=/opt LDFLAGS=-Wl,-O1
grep -q 'CC *lib/core/window.o' said
if grep 'CC *lib/base/' said; then
    exit 1
fi
done_for prefix=/opt LDFLAGS=-Wl,-O1 CPPFLAGS=-DSOMETHING
grep -q 'CC *lib/base/hash.o' said
echo 'CPPFLAGS = -DSOMETHING' >config.mak
done_for prefix=/opt LDFLAGS=-Wl,-O1
expects 0 .
done_for prefix=/opt LDFLAGS=-Wl,-O1 DESTDIR="$dir/elsewhere/root" install
find root -name '*.[0-9]' ! -type l >pages
grep 'man7/outbox.7' pages
grep 'man3/outbox_relay_new.3' pages
if grep -E 'sqlite|pg|cloudevents' pages; then
    exit 1
fi
(cd "$dir" && find . -name elsewhere -prune -o -print | sort) >after
diff before after
