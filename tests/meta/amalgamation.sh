#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The library as two files: compiles without a warning, together with an
# example and nothing else of ours, and runs.
set -eu

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
$MAKE -s -f "$TOP/Makefile" O="$dir/build" amalgamation
mv build/plain/amalgamation/outbox.[ch] .

# The one change that a user of the two files makes.
sed 's,<outbox/.*>,"outbox.h",' "$TOP/examples/publish.c" >publish.c
$CC -std=c11 -Wall -Wextra -Werror $PKG_CFLAGS -pthread -o publish \
    publish.c outbox.c $PKG_LIBS
./publish
cat >needs.c <<'END'
#include "outbox.h"
#include "outbox.h"
int main(void)
{
    return outbox_version() == OUTBOX_VERSION ? 0 : 1;
}
END
$CC -std=c11 -Wall -Wextra -Werror -O2 $PKG_CFLAGS -pthread -o needs \
    needs.c outbox.c $PKG_LIBS
./needs

# Two stores in one file: no static name comes twice.
case " $PARTS " in
*" outbox-pg "*)
    $MAKE -s -f "$TOP/Makefile" O="$dir/build" amalgamation STORES="sqlite pg"
    $CC -std=c11 -Wall -Wextra -Werror $PKG_CFLAGS -pthread -c -o both.o \
        build/plain/amalgamation/outbox.c
    ;;
esac
