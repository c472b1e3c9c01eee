#!/bin/sh
# SPDX-License-Identifier: MIT
#
# run.sh - the scenarios, one by one, and then KILLS kills.  Needs the torture
# program in $BUILD/fail, as make torture builds it.  SEED repeats the choices
# of a run, though not its timing; PLAN="async=1 keys=2" fixes knobs of plan.c
# in every round.
set -u
torture=${TORTURE:-${BUILD:?run make torture}/fail/torture}
seed=${SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}

echo "seed          $seed"
"$torture" directed all "$seed" || exit 1
"$torture" chaos "${KILLS:-2000}" "$seed"
