#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The manual is free of lint, and has a page for each exported function and
# each type that users fill in or get, and for nothing else.
set -u
cd "$TOP" || exit 1

status=0
mandoc -T lint -W warning man/*.[0-9] || status=1

names()
{
    sed -n '/^\.Sh NAME/,/^\.Sh [^N]/s/^\.Nm \([a-z0-9_]*\).*/\1/p' "$@" |
        LC_ALL=C sort
}

# Lines in are faults: true if there are any.
fault()
{
    sed "s/\$/: $1/" | grep .
}

types=$(sed -n 's/^\(typedef .*\)\{0,1\}} \(outbox_[a-z_]*\);.*/\2/p' \
    include/outbox/outbox.h include/outbox/cloudevents.h)
exported=$({ cat lib/*.sym; echo "$types"; } | LC_ALL=C sort)
pages=$(for page in man/*.[0-9]; do basename "${page%.*}"; done)
have()
{
    names man/*.3
}

have | uniq -d | fault 'in the NAME of two pages' && status=1
echo "$exported" | while read -r name; do
    have | grep -qx "$name" || echo "$name"
done | fault 'has no page' && status=1
have | while read -r name; do
    printf '%s\n' $exported $pages | grep -qx "$name" || echo "$name"
done | fault 'has a page but is not exported' &&
    status=1
exit $status
