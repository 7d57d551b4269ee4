#!/usr/bin/env bash
# Regenerates .sqlx, the data by which the query macros check SQL without a database.
#
#   crates/nereid-store/prepare.sh           rewrites .sqlx; commit it together with the SQL
#   crates/nereid-store/prepare.sh --check   changes nothing, fails if .sqlx is out of date
#
# Does what `cargo sqlx prepare` does, without that tool: starts a throw-away Postgres, applies the
# migrations, and compiles this crate against it with SQLX_OFFLINE_DIR set, where the macros then
# leave one file per query. Postgres is stopped however this ends.
set -euo pipefail

case "${1-}" in
'') check=false ;;
--check) check=true ;;
*)
    echo "usage: $0 [--check]" >&2
    exit 2
    ;;
esac

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"

# shellcheck source=crates/nereid-store/throwaway-postgres.sh
source crates/nereid-store/throwaway-postgres.sh

scratch=$(mktemp -d /tmp/nereid-sqlx.XXXXXX)
cleanup() {
    stop_postgres "$scratch/server"
    rm -rf "$scratch"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

chmod 755 "$scratch"
mkdir "$scratch/queries"
start_postgres "$scratch/server"

for migration in migrations/*.sql; do
    "$POSTGRES_BIN/psql" -h "$POSTGRES_SOCKET" -U nereid -d postgres --quiet --no-psqlrc \
        --set ON_ERROR_STOP=1 --single-transaction --file "$migration" >/dev/null
done

# Cargo does not know that the macros' output depends on the database: only a change recompiles.
touch crates/nereid-store/src/lib.rs
# The whole workspace, so that this shares its dependencies' builds with every other command; what
# counts is that this crate compiles, whatever state the ones above it are in.
artifacts=$(
    export SQLX_OFFLINE=false SQLX_OFFLINE_DIR=$scratch/queries
    export NEREID_SQLX_DATABASE_URL="postgres://nereid@localhost/postgres?host=$POSTGRES_SOCKET&sslmode=disable"
    cargo check --workspace --keep-going --message-format=json-render-diagnostics
) || true
if ! grep -q '"reason":"compiler-artifact".*"name":"nereid_store"' <<<"$artifacts"; then
    echo "nereid-store does not compile against the migrations; see above" >&2
    exit 1
fi
if ! compgen -G "$scratch/queries/query-*.json" >/dev/null; then
    echo "the macros wrote nothing: was nereid-store recompiled?" >&2
    exit 1
fi

if $check; then
    if ! diff -rq .sqlx "$scratch/queries"; then
        echo ".sqlx is out of date: run crates/nereid-store/prepare.sh and commit the result" >&2
        exit 1
    fi
    echo ".sqlx is up to date"
else
    mkdir -p .sqlx
    find .sqlx -name 'query-*.json' -delete
    cp "$scratch"/queries/query-*.json .sqlx/
    echo ".sqlx holds $(find .sqlx -name 'query-*.json' | wc -l) queries"
fi
