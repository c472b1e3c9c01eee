#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Names of files and of static functions are unique in lib/, because the
# amalgamation puts all of it into one file.
set -u
cd "$TOP/lib" || exit 1

twice()
{
    sort | uniq -d | sed "s/^/$1 twice: /" | grep .
}

status=0
find . -name '*.[ch]' | sed 's,.*/,,' | twice 'a file' && status=1
# A definition: static in column 0, the name before the first parenthesis.
find . -name '*.c' | sort | xargs grep -h '^static [^=;]*(' |
    sed 's/(.*//; s/.*[ *]//' | sort | uniq -c | awk '$1 > 1 { print $2 }' |
while read -r name; do
    # A declaration ahead in the same file is no second one.
    find . -name '*.c' | xargs grep -l "^static .*\<$name(" | wc -l |
        grep -qx 1 || echo "a static function twice: $name"
done | grep . && status=1
exit $status
