# Sourced by scripts that need a Postgres for a moment.
#
#   start_postgres DIR   starts one in DIR, a new folder, and sets POSTGRES_BIN and POSTGRES_SOCKET
#   stop_postgres DIR    stops it, if it runs; the folder stays
#
# Postgres is looked for in NEREID_PG_BIN, PATH and /usr/lib/postgresql. It listens on a Unix
# socket only, and anybody who reaches that is user nereid.
# With POSTGRES_DURABLE set it keeps its default durability, for who measures.
# shellcheck shell=bash

find_postgres() {
    local dir
    for dir in "${NEREID_PG_BIN-}" "$(dirname "$(command -v initdb || echo /)")" \
        $(printf '%s\n' /usr/lib/postgresql/*/bin | sort --version-sort --reverse); do
        if [[ -n $dir && -x $dir/initdb && -x $dir/pg_ctl && -x $dir/psql ]]; then
            echo "$dir"
            return
        fi
    done
    echo "no Postgres found: install it, or name its bin directory in NEREID_PG_BIN" >&2
    return 1
}

# Postgres refuses to run as root.
unprivileged() {
    if [[ $EUID -ne 0 ]]; then
        "$@"
    elif id postgres &>/dev/null; then
        runuser -u postgres -- "$@"
    else
        runuser -u nobody -- "$@"
    fi
}

start_postgres() {
    local speed="-c fsync=off"
    if [[ -n ${POSTGRES_DURABLE-} ]]; then
        speed=""
    fi
    POSTGRES_BIN=$(find_postgres)
    POSTGRES_SOCKET=$1
    mkdir "$1"
    if [[ $EUID -eq 0 ]]; then
        chown "$(unprivileged id -u)" "$1"
    fi
    # From /: the caller's directory may be closed to the other user.
    (
        cd /
        unprivileged "$POSTGRES_BIN/initdb" -D "$1/data" -U nereid -A trust -E UTF8 \
            --locale=C --no-sync >/dev/null
        unprivileged "$POSTGRES_BIN/pg_ctl" -D "$1/data" -l "$1/log" -w start \
            -o "$speed -c listen_addresses='' -c unix_socket_directories=$1" >/dev/null
    ) || {
        echo "Postgres did not start:" >&2
        tail -n 20 "$1/log" >&2 || true
        return 1
    }
}

stop_postgres() {
    if [[ -n ${POSTGRES_BIN-} ]]; then
        (cd / && unprivileged "$POSTGRES_BIN/pg_ctl" -D "$1/data" -m immediate stop) &>/dev/null ||
            true
    fi
}
