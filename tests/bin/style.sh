#!/bin/sh
# SPDX-License-Identifier: MIT
#
# style.sh [file...] - the layout of the code: of all of it, or of these
# files.  .clang-format says how statements, statements.awk what is free.
set -u
cd "${TOP:-$(dirname "$0")/../..}" || exit 1

clang_format=${CLANG_FORMAT:-clang-format}
statements=tests/bin/statements.awk
status=0
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT

layout()
{
    awk -f $statements "$1" >"$dir/is"
    awk -v plain=1 -f $statements "$1" >"$dir/bare"
    $clang_format --assume-filename="$PWD/$1" <"$dir/bare" |
        awk -f $statements >"$dir/should"
    diff -U0 --label "$1, as it is" --label "$1, as it should be" \
        "$dir/is" "$dir/should" || status=1
}

# Lines that match a pattern are faults.
without()
{
    say=$1 pattern=$2
    shift 2
    if grep -nHE "$pattern" "$@" | sed "s|\$|    <- $say|" | grep .; then
        status=1
    fi
}

functions()
{
    awk '
        FNR == 1 { inside = 0 }
        /^\{$/   { inside = 1; start = FNR; next }
        /^\}/ && inside {
            inside = 0
            if (FNR - start - 1 > 80) {
                printf "%s:%d: function of %d lines\n", FILENAME, start,
                    FNR - start - 1
                bad = 1
            }
        }
        END { exit bad }' "$@" || status=1
}

if [ $# -eq 0 ]; then
    set -- $(find lib include examples tests -name '*.[ch]' | sort)
    # The head of the pattern keeps this file from matching itself.
    without 'unfinished' '\<(TO[D]O|FIX[M]E|XX[X])\>' -r Makefile lib \
        include examples tests man
    texts=$(find Makefile lib include examples tests man -type f \
        ! -name '*.[ch]' ! -name '*.jsonl' ! -name '*.patch')
    without 'over 80 columns' '^.{81}' $texts
    without 'a blank at the end' '[[:blank:]]$' $texts
fi
without 'over 80 columns' '^.{81}' "$@"
without 'a tab, or a blank at the end' "$(printf '\t')|[[:blank:]]\$" "$@"
without 'a // comment' '(^|[^:"])//' "$@"
for file do
    case $file in
    lib/*) functions "$file" ;;
    esac
    layout "$file"
done
exit $status
