#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Each public header compiles alone, as C99, C11 and C++17, without warnings,
# before and after sqlite3.h, and twice.
set -u
cd "$TOP" || exit 1

strict="-Wall -Wextra -pedantic -Werror -Wundef -Wshadow -fsyntax-only"
status=0

# accepts language standard line...: compile these includes.
accepts()
{
    language=$1 standard=$2
    shift 2
    case $language in
    c++) compiler=$CXX ;;
    *)   compiler=$CC ;;
    esac
    printf '#include <%s>\n' "$@" |
        $compiler -std="$standard" $strict $PKG_CFLAGS -Iinclude \
            -x "$language" - || {
        echo "$standard: $*" >&2
        status=1
    }
}

for header in include/outbox/*.h; do
    header=${header#include/}
    for as in 'c c99' 'c c11' 'c++ c++17'; do
        accepts $as "$header"
        accepts $as "$header" sqlite3.h
        accepts $as sqlite3.h "$header"
        accepts $as "$header" "$header"
    done
done
exit $status
