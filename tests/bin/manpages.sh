#!/bin/sh
# SPDX-License-Identifier: MIT
#
# manpages.sh dir page... - lay out pages as man(1) wants to find them.
#
# Each page goes to dir/man<section>/; each further name in its NAME section
# becomes a page that only says where to look.
set -eu

dir=$1
shift
rm -rf "$dir"
for page do
    file=$(basename "$page")
    section=${file##*.}
    mkdir -p "$dir/man$section"
    cp "$page" "$dir/man$section/$file"
    sed -n '/^\.Sh NAME/,/^\.Sh [^N]/s/^\.Nm \([a-z0-9_]*\).*/\1/p' "$page" |
    while read -r name; do
        test "$name.$section" = "$file" ||
            echo ".so man$section/$file" >"$dir/man$section/$name.$section"
    done
done
