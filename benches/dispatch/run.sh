#!/usr/bin/env bash
# Compares Nereid's queue with graphile-worker's and pg-boss', in one run on one Postgres.
#
#   benches/dispatch/run.sh [ROUNDS] [OUTPUT.json]
#
# Starts a throw-away Postgres with its default durability and measures each contender in turn, so
# many rounds (3 unless given), each in a database of its own; prints the medians with their ratios
# as a table and, if asked for, writes all figures as JSON. Takes about two minutes a round. Needs
# Node with npm, a Postgres (NEREID_PG_BIN, PATH or /usr/lib/postgresql) with pgbench, and a release
# build: NEREID names the binary, else cargo's release folder is asked.
set -euo pipefail

rounds=${1-3}
output=${2-}
seconds=${SECONDS_EACH-3}
jobs=${JOBS-20000}
samples=${SAMPLES-200}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
nereid=${NEREID-${CARGO_TARGET_DIR-$root/target}/release/nereid}
[[ -x $nereid ]] || {
    echo "no $nereid: run cargo build --release first, or name the binary in NEREID" >&2
    exit 1
}

# shellcheck source=crates/nereid-store/throwaway-postgres.sh
source "$root/crates/nereid-store/throwaway-postgres.sh"

scratch=$(mktemp -d /tmp/nereid-bench.XXXXXX)
cleanup() {
    stop_postgres "$scratch/server"
    rm -rf "$scratch"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP
chmod 755 "$scratch"

[[ -d $here/node_modules ]] || (cd "$here" && npm ci --no-fund --no-audit --force >&2)
node=$here/node_modules/node/bin/node

POSTGRES_DURABLE=1 start_postgres "$scratch/server"
export PGHOST=$POSTGRES_SOCKET PGUSER=nereid
psql() { "$POSTGRES_BIN/psql" --quiet --no-psqlrc --no-align --tuples-only "$@"; }

# Each measurement starts on an empty database, with nothing left for a checkpoint to write.
fresh() {
    psql -d postgres -c "DROP DATABASE IF EXISTS $1 WITH (FORCE)" -c "CREATE DATABASE $1" -c CHECKPOINT 2>/dev/null
}
record() {
    printf '{"round":%d,"who":"%s","what":"%s","figures":%s}\n' "$round" "$1" "$2" \
        "$(tr -d '\n' <<<"$3")" >>"$scratch/figures.jsonl"
}
peer() {
    local figures
    fresh peer
    figures=$(PGDATABASE=peer "$node" "$here/peers.mjs" "$@" 2>"$scratch/errors") || {
        cat "$scratch/errors" >&2
        exit 1
    }
    record "$1" "$2 $3" "$figures"
}
ours() {
    psql -d postgres -c CHECKPOINT
    local url="postgres://nereid@localhost/postgres?host=$POSTGRES_SOCKET&sslmode=disable"
    local figures
    figures=$(DATABASE_URL=$url "$nereid" bench dispatch --json --clients 1,16,64 \
        --seconds "$seconds" --jobs "$jobs" --samples "$samples")
    record nereid all "$figures"
}

for round in $(seq "$rounds"); do
    echo "round $round of $rounds" >&2
    ours
    for who in graphile-worker pg-boss; do
        for clients in 1 16 64; do
            peer $who submit "$clients" "$seconds"
        done
        peer $who drain "$jobs"
        peer $who latency "$samples"
    done
done

"$node" "$here/table.mjs" "$scratch/figures.jsonl" "$output"
