#!/bin/sh
# SPDX-License-Identifier: MIT
#
# coverage.sh build - lines of the library that the last run reached.
set -eu

build=$1
find "$build/lib" -name '*.gcda' | sort | while read -r data; do
    gcov -n -o "$(dirname "$data")" "$data" 2>/dev/null
done | awk '
    /^File /  { file = $2; gsub("\047", "", file) }
    /^Lines / {
        split($2, part, /[:%]/)
        # A header counts with each file that includes it: left out.
        if (file ~ /(^|\/)lib\/.*\.c$/ && !(file in seen)) {
            seen[file] = 1
            printf "%7.2f%% of %5d  %s\n", part[2], $4, file
            hit += part[2] * $4 / 100
            all += $4
        }
    }
    END {
        if (!all)
            exit 1
        printf "%7.2f%% of %5d lines\n", 100 * hit / all, all
    }'
