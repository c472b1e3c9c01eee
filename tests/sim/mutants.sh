#!/bin/sh
# SPDX-License-Identifier: MIT
#
# mutants.sh [name...] - break a rule in a copy of the library, and demand
# that the simulator finds out.  Each patch in mutants/ breaks one; its first
# lines say which, and which violation must be seen:
#
#   Breaks: saves are fenced     in words
#   Expect: unfenced\|lost       a pattern for what follows "violation: "
#
# A patch that does not apply, or that the copy does not survive compiling,
# is an error: the mutants move with the code.  SEEDS seeds are tried, from 1
# on, in as many processes as there are processors.
set -u
TOP=${TOP:-$(cd "$(dirname "$0")/../.." && pwd)}
seeds=${MUTANT_SEEDS:-20000}
jobs=$(nproc)
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM

head_of()
{
    sed -n "s/^$2: //p;/^---/q" "$1"
}

build()
{
    ${MAKE:-make} -s -j"$jobs" -C "$dir/tree" O=build CFLAGS=-O2 \
        build/plain/tests/sim/sim >"$dir/build.log" 2>&1
}

fault()
{
    echo "$1: $2"
    [ $# -lt 3 ] || sed 's/^/    /' "$3"
    failed=$((failed + 1))
}

# The seed that sees it first, of those that the processes came to.
caught()
{
    timeout 600 "$dir/tree/build/plain/tests/sim/sim" --seeds 1 "$seeds" \
        --jobs "$jobs" >"$dir/out" 2>&1
    grep "^violation: \($1\):" "$dir/out" |
        sed 's/^violation: \([a-z]*\): seed \([0-9]*\).*/\2 \1/' |
        sort -n >"$dir/found"
    test -s "$dir/found"
}

mutant()
{
    patch=$1 name=$(basename "$1" .patch)
    breaks=$(head_of "$patch" Breaks) expect=$(head_of "$patch" Expect)
    if [ -z "$breaks" ] || [ -z "$expect" ]; then
        fault "$name" 'does not say what it breaks, or what to expect'
        return
    fi
    if ! (cd "$dir/tree" && patch -p1 -F0 -s <"$patch") >"$dir/out" 2>&1
    then
        fault "$name" 'does not apply' "$dir/out"
        rm -rf "$dir/tree/lib" "$dir/tree/tests/memory"
        cp -R "$TOP/lib" "$dir/tree"
        cp -R "$TOP/tests/memory" "$dir/tree/tests"
        return
    fi
    if ! build; then
        fault "$name" 'does not compile' "$dir/build.log"
    elif caught "$expect"; then
        read -r seed rule <"$dir/found"
        printf '%-24s %-10s %6d  %s\n' "$name" "$rule" "$seed" "$breaks"
        killed=$((killed + 1))
    else
        tail -n 3 "$dir/out" >"$dir/last"
        fault "$name" "survived $seeds seeds; no violation: $expect" \
            "$dir/last"
    fi
    (cd "$dir/tree" && patch -R -p1 -F0 -s <"$patch") || exit 1
}

killed=0 failed=0
mkdir "$dir/tree" "$dir/tree/tests"
for part in Makefile include lib tests/sim tests/memory tests/bin; do
    cp -R "$TOP/$part" "$dir/tree/$part" || exit 1
done
printf '%-24s %-10s %6s  %s\n' mutant 'caught as' seed breaks
[ $# -gt 0 ] || set -- $(cd "$TOP/tests/sim/mutants" && ls -- *.patch)
for name do
    mutant "$TOP/tests/sim/mutants/${name%.patch}.patch"
done
echo "$killed mutants caught, $failed not"
[ $failed -eq 0 ]
