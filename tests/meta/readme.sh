#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The quick start in README.md, its first block of C, is examples/quickstart.c
# to the letter, but for the comment at that one's head; as printed it
# compiles and runs.
set -eu

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

sed -n '/^```c$/,/^```$/p' "$TOP/README.md" |
    sed -e 1d -e '/^```$/q' | sed '/^```$/d' >"$dir/quickstart.c"
sed '1,/^ \*\/$/d' "$TOP/examples/quickstart.c" >"$dir/example.c"
diff -u "$dir/example.c" "$dir/quickstart.c"
$CC -std=c11 -Wall -Wextra -Werror -I"$TOP/include" $PKG_CFLAGS -pthread \
    -o "$dir/quickstart" "$dir/quickstart.c" "$BUILD/liboutbox-sqlite.a" \
    "$BUILD/liboutbox.a" $PKG_LIBS
"$dir/quickstart"
