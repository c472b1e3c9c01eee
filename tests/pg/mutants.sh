#!/bin/sh
# SPDX-License-Identifier: MIT
#
# mutants.sh [name...] - break the PostgreSQL store on purpose, in a copy, and
# demand that a directed test sees it.  Each patch in mutants/ is one way to
# break it; its first lines say which test must fail:
#
#   Run: order                   a case of the tests in this folder
#   Contract: ops                or one of the contract suite
#   Expect: published_in_a_savepoint_and_committed_later
#
# A patch that does not apply, or that the copy does not survive compiling,
# is an error: the mutants move with the code.
set -u
TOP=${TOP:-$(cd "$(dirname "$0")/../.." && pwd)}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
killed=0 failed=0

head_of()
{
    sed -n "s/^$2: //p;/^---/q" "$1"
}

build()
{
    ${MAKE:-make} -s -C "$dir/tree" O=build CFLAGS=-O1 "$1" \
        >"$dir/build.log" 2>&1
}

fault()
{
    echo "$1: $2"
    [ $# -lt 3 ] || sed 's/^/    /' "$3"
    failed=$((failed + 1))
}

# The suite's case $2 of program $1 must fail in test $3.
caught()
{
    CK_RUN_CASE=$2 CK_DEFAULT_TIMEOUT=30 timeout 300 \
        sh "$dir/tree/tests/bin/pg-cluster" run -o fsync=off \
        sh "$dir/tree/tests/bin/pg-pooler" run "$1" \
        >"$dir/out" 2>&1
    grep -q ":[FE]:[a-z]*:$3:" "$dir/out"
}

mutant()
{
    patch=$1 name=$(basename "$1" .patch) program=build/plain/fail/pg
    run=$(head_of "$patch" Run) expect=$(head_of "$patch" Expect)
    if [ -z "$run" ]; then
        run=$(head_of "$patch" Contract)
        program=build/plain/tests/contract/contract
    fi
    if ! (cd "$dir/tree" && patch -p1 -F0 -s <"$patch") >"$dir/out" 2>&1
    then
        fault "$name" 'does not apply' "$dir/out"
        rm -rf "$dir/tree/lib"
        cp -R "$TOP/lib" "$dir/tree"
        return
    fi
    if ! build "$program"; then
        fault "$name" 'does not compile' "$dir/build.log"
    elif caught "$dir/tree/$program" "$run" "$expect"; then
        printf '%-28s caught: %s\n' "$name" "$expect"
        killed=$((killed + 1))
    else
        fault "$name" "survived $run; $expect did not fail" "$dir/out"
    fi
    (cd "$dir/tree" && patch -R -p1 -F0 -s <"$patch") || exit 1
}

mkdir "$dir/tree"
for part in Makefile include lib tests; do
    cp -R "$TOP/$part" "$dir/tree" || exit 1
done
[ $# -gt 0 ] || set -- $(cd "$TOP/tests/pg/mutants" && ls -- *.patch)
for name do
    mutant "$TOP/tests/pg/mutants/${name%.patch}.patch"
done
echo "$killed mutants of the PostgreSQL store caught, $failed not"
[ $failed -eq 0 ]
