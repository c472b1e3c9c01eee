#!/bin/sh
# SPDX-License-Identifier: MIT
#
# analyze.sh amalgamation flag... - clang-tidy and cppcheck; a finding is a
# failure.
#
# clang-tidy reads the library as the one file outbox.c, because there it sees
# what a called function returns, and the examples each by itself.
set -u
amalgamation=$1
shift
cd "$TOP" || exit 1

clang_tidy=${CLANG_TIDY:-clang-tidy}
status=0
out=$(mktemp) || exit 1
trap 'rm -f "$out"' EXIT

tidy()
{
    file=$1
    shift
    $clang_tidy --quiet --config-file=.clang-tidy "$file" -- "$@" \
        >"$out" 2>&1 && return
    cat "$out"
    status=1
}

# What fails returns outbox_error_set(), which returns its second argument;
# clang-tidy does not look into a function that takes "...", so it is told.
sed '/^\/\* ==== lib\/base\/hash.c/i\
#define outbox_error_set(err, code, ...) \\\
    (outbox_error_set(err, code, __VA_ARGS__), (code))
' "$amalgamation/outbox.c" >"$amalgamation/analyzed.c"
tidy "$amalgamation/analyzed.c" "$@" -I"$amalgamation"
for file in $(find examples -name '*.c' | sort); do
    tidy "$file" "$@"
done

# POSIX says that NULL is a pointer, so it may end a list of arguments; what is
# not initialised clang-tidy finds with fewer false alarms.
${CPPCHECK:-cppcheck} --quiet --std=c11 --error-exitcode=1 --inline-suppr \
    --enable=warning,performance,portability --suppress=varFuncNullUB \
    --suppress=uninitvar \
    -Iinclude -Ilib/base -Ilib/core -Itests lib examples || status=1
exit $status
