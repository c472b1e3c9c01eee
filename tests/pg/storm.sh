#!/bin/sh
# SPDX-License-Identifier: MIT
#
# storm.sh - EVENTS events through a storm, in a server of its own that writes
# to its disk as by default.  Needs $BUILD/fail/storm, as make torture builds
# it.  SEED repeats the choices of a run, though not its timing.
set -u
TOP=${TOP:-$(cd "$(dirname "$0")/../.." && pwd)}
storm=${BUILD:?run make torture}/fail/storm
seed=${SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}

echo "seed          $seed"
sh "$TOP/tests/bin/pg-cluster" run "$storm" "${EVENTS:-10000000}" "$seed"
