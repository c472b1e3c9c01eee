#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The demo service, with fewer orders than make demo gives it, on each
# database: its parts agree in the end, and it says so in less than 40 lines.
set -eu

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

head -n 60 "$TOP/examples/orders.jsonl" >"$dir/orders.jsonl"
demos=demo
case " $PARTS " in
*' outbox-pg '*) demos='demo demo-pg' ;;
esac
for demo in $demos; do
    "$BUILD/examples/demo/$demo" "$dir/orders.jsonl" >"$dir/said" || {
        cat "$dir/said"
        exit 1
    }
    cat "$dir/said"
    test "$(wc -l <"$dir/said")" -lt 40
done
