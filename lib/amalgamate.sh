#!/bin/sh
# SPDX-License-Identifier: MIT
#
# amalgamate.sh top gen out headers sources - the library as two files.
#
# out/outbox.h holds the public headers, out/outbox.c everything else.  Our
# own includes are replaced by the file they name, the first time, and by
# nothing after that; generated text (.inc) and lists of statements each time.
# What makes this so simple is a rule of the tree: names of files and of static
# functions are unique in it.
set -eu

top=$1 gen=$2 out=$3 headers=$4 sources=$5
mkdir -p "$out"

# paste: files in, one text out.  path: where includes are looked up; seen:
# files that are there already.
paste='
function find(name,    n, i, dir, line, file) {
    n = split(path, dir, " ")
    for (i = 1; i <= n; i++) {
        file = dir[i] "/" name
        if ((getline line < file) >= 0) {
            close(file)
            return file
        }
    }
    return ""
}
function paste(file,    line, name, again, found) {
    while ((getline line < file) > 0) {
        if (line !~ /^#include [<"]/) {
            print line
            continue
        }
        name = line
        sub(/^#include [<"]/, "", name)
        sub(/[>"].*/, "", name)
        again = name
        sub(/.*\//, "", again)
        found = line ~ /"/ || name ~ /^outbox\// ? find(name) : ""
        if (found == "")
            print line
        else if (name ~ /\.inc$|_statements/ || !(again in seen)) {
            seen[again] = 1
            paste(found)
        }
    }
    close(file)
}
BEGIN {
    n = split(given, list, " ")
    for (i = 1; i <= n; i++)
        seen[list[i]] = 1
    n = split(files, list, " ")
    for (i = 1; i <= n; i++) {
        name = list[i]
        sub(/.*\//, "", name)
        if (!(name in seen)) {
            seen[name] = 1
            if (name ~ /\.c$/)
                printf "\n/* ==== %s ==== */\n\n", list[i]
            paste(top "/" list[i])
        }
    }
}'

path="$top/include $gen"
for dir in "$top"/lib/*/; do
    path="$path ${dir%/}"
done
public=
for header in $headers; do
    public="$public include/outbox/$header"
done

head()
{
    printf '/* SPDX-License-Identifier: MIT\n *\n'
    printf ' * %s\n' "$@"
    printf ' */\n'
}

{
    head 'liboutbox in two files: outbox.c and outbox.h, made by' \
        'make amalgamation.  Include "outbox.h" instead of <outbox/...>,' \
        'compile outbox.c with -pthread, and link what the stores need.'
    awk -v top="$top" -v path="$path" -v files="$public" "$paste"
} >"$out/outbox.h.new"
{
    head 'liboutbox in two files: see outbox.h.'
    printf '#ifndef _GNU_SOURCE\n#define _GNU_SOURCE\n#endif\n'
    printf '#include "outbox.h"\n'
    awk -v top="$top" -v path="$path" -v files="$sources" \
        -v given="$headers" "$paste"
} >"$out/outbox.c.new"
mv "$out/outbox.h.new" "$out/outbox.h"
mv "$out/outbox.c.new" "$out/outbox.c"
