#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Every source file says its license near the top, COPYING is that license,
# and the tree holds nothing that does not belong there: at its top, or what
# patch and editors leave behind.
set -u
cd "$TOP" || exit 1

status=0
sources=$(find Makefile configure.ac lib include examples tests man \
    -type f ! -name '*.sym' ! -name '*.in' ! -name '*.jsonl' \
    ! -name '*.patch' ! -name '*.md')
for file in $sources; do
    head -n 3 "$file" | grep -q 'SPDX-License-Identifier: MIT' && continue
    echo "$file: no SPDX-License-Identifier: MIT"
    status=1
done
grep -q 'Permission is hereby granted, free of charge' COPYING || {
    echo "COPYING is not the MIT license"
    status=1
}
# What git knows, or in a copy without git, what is there.
for name in $(git ls-files 2>/dev/null || ls); do
    case ${name%%/*} in
    Makefile|configure.ac|lib|include|examples|tests|man|README.md|COPYING) ;;
    .*) ;;
    *)  echo "$name: does not belong at the top"
        status=1 ;;
    esac
    case $name in
    *.orig|*.rej|*.swp|*~)
        echo "$name: was left behind"
        status=1 ;;
    esac
done
exit $status
