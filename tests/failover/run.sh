#!/bin/sh
# SPDX-License-Identifier: MIT
#
# run.sh [part] - what befalls real processes, as make failover runs it: all
# parts, or one of them, in ROUNDS rounds; DOSE=small is a taste of each, as
# where CI is true.  Needs the program in $BUILD/tests/failover.  SEED repeats
# the choices of a run, though not its timing.
set -u
failover=${BUILD:?run make failover}/tests/failover/failover
seed=${SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
dose=${DOSE:-full} rounds=${ROUNDS:-500}
if [ "$dose" = small ] || [ "${CI:-}" = true ]; then
    dose=small rounds=${ROUNDS:-10}
fi

# Where faketime keeps what it preloads, it alone knows.
if command -v faketime >/dev/null 2>&1; then
    FAILOVER_PRELOAD=$(faketime -m -f +0 env | sed -n 's/^LD_PRELOAD=//p')
    export FAILOVER_PRELOAD
fi

echo "seed          $seed"
exec "$failover" "$rounds" "$dose" "$seed" "$@"
