#!/bin/sh
# SPDX-License-Identifier: MIT
#
# mutants.sh [name...] - break the library on purpose, in a copy, and demand
# that torture reports it.  Each patch in mutants/ is one way to break it; its
# first lines say what to run and which violation must be seen:
#
#   Run: chaos 60                as arguments of torture, without the seed
#   Plan: async=1                knobs of every round, if any
#   Expect: lost                 a pattern for what follows "violation: "
#
# A patch that does not apply, or that the copy does not survive compiling,
# is an error: the mutants move with the code.
set -u
TOP=${TOP:-$(cd "$(dirname "$0")/../.." && pwd)}
seed=${SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
tries=${TRIES:-3}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
# What breaks keeps its files: here, so that they go too.
TMPDIR=$dir
export TMPDIR

head_of()
{
    sed -n "s/^$2: //p;/^---/q" "$1"
}

build()
{
    ${MAKE:-make} -s -C "$dir/tree" O=build CFLAGS=-O1 \
        build/plain/fail/torture >"$dir/build.log" 2>&1
}

fault()
{
    echo "$1: $2"
    [ $# -lt 3 ] || sed 's/^/    /' "$3"
    failed=$((failed + 1))
}

# Chaos may need more than one attempt to meet what is broken.
caught()
{
    try=0
    while [ $try -lt "$tries" ]; do
        # shellcheck disable=SC2086
        PLAN=$3 timeout 300 "$dir/tree/build/plain/fail/torture" $1 \
            $((seed + try)) >"$dir/out" 2>&1
        grep -q "^violation: \($2\)" "$dir/out" && return 0
        try=$((try + 1))
    done
    return 1
}

mutant()
{
    patch=$1 name=$(basename "$1" .patch)
    run=$(head_of "$patch" Run) expect=$(head_of "$patch" Expect)
    plan=$(head_of "$patch" Plan)
    if [ -z "$run" ] || [ -z "$expect" ]; then
        fault "$name" 'does not say what to run, or what to expect'
        return
    fi
    if ! (cd "$dir/tree" && patch -p1 -F0 -s <"$patch") >"$dir/out" 2>&1
    then
        fault "$name" 'does not apply' "$dir/out"
        rm -rf "$dir/tree/lib"
        cp -R "$TOP/lib" "$dir/tree"
        return
    fi
    if ! build; then
        fault "$name" 'does not compile' "$dir/build.log"
    elif caught "$run" "$expect" "$plan"; then
        printf '%-28s caught: %s\n' "$name" \
            "$(sed -n "s/^violation: \($expect\).*/\1/p" "$dir/out" |
                sort | uniq -c | sort -rn | sed 's/^ *[0-9]* //;q')"
        killed=$((killed + 1))
    else
        fault "$name" "survived $run; no violation: $expect" "$dir/out"
    fi
    (cd "$dir/tree" && patch -R -p1 -F0 -s <"$patch") || exit 1
}

killed=0 failed=0
mkdir "$dir/tree"
for part in Makefile include lib tests; do
    cp -R "$TOP/$part" "$dir/tree" || exit 1
done
echo "seed $seed"
if ! build; then
    cat "$dir/build.log"
    exit 1
fi
[ $# -gt 0 ] || set -- $(cd "$TOP/tests/torture/mutants" && ls -- *.patch)
for name do
    mutant "$TOP/tests/torture/mutants/${name%.patch}.patch"
done
echo "$killed mutants caught, $failed not"
[ $failed -eq 0 ]
