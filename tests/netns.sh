#!/usr/bin/env bash
# Three hosts, each a network namespace: Postgres, S3 and an API on the first, a worker on each of
# the others. They share nothing but the network.
#
# The worker that trains is cut off from Postgres, without a word to either side; S3 it still
# reaches. Its job has to end on the other host, once; it has to notice by itself that it lost the
# job, and to take jobs again when the network is back.
#
# Needs root and the right to make namespaces; says so and ends with 77 where there is neither.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
assets=$root/crates/nereid/assets
nereid=${NEREID_TEST_BINARY:-${CARGO_TARGET_DIR:-$root/target}/debug/nereid}
lease=5

# Nothing of the caller's configuration, nor of a proxy, gets in between.
unset DATABASE_URL NEREID_URL NEREID_API_KEY NEREID_CONFIG NEREID_DATA_DIR
unset AWS_PROFILE AWS_SESSION_TOKEN http_proxy https_proxy HTTP_PROXY HTTPS_PROXY
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 NO_COLOR=1

# moto is the S3.
# shellcheck source=tests/clients/venv.sh
source "$root/tests/clients/venv.sh"
# shellcheck source=crates/nereid-store/throwaway-postgres.sh
source "$root/crates/nereid-store/throwaway-postgres.sh"

skip() {
    echo "skipped: $*" >&2
    exit 77
}

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

say() { printf '\n-- %s (%s)\n' "$*" "$(date +%T)"; }

net=nereid-$$
[[ $EUID -eq 0 ]] || skip "network namespaces need root"
command -v ip >/dev/null || skip "no ip command: apt-get install iproute2"
ip netns add "$net-switch" 2>/dev/null || skip "this machine does not allow network namespaces"

scratch=$(mktemp -d /tmp/nereid-netns.XXXXXX)
chmod 755 "$scratch"
declare -A pids=()

# Waits for a process to end and gives its status; by force after 20 s.
stop() {
    local pid=$1 status=0
    kill -TERM "$pid" 2>/dev/null || return 0
    for _ in $(seq 200); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null && echo "$pid did not end by itself" >&2
    wait "$pid" 2>/dev/null || status=$?
    return "$status"
}

cleanup() {
    local status=$? name host
    trap - EXIT
    if [[ $status -ne 0 ]]; then
        for name in "$scratch"/*.log "$scratch/postgres/log"; do
            printf '\n-- the end of %s\n' "${name##*/}"
            grep -v 'checkpoint stored' "$name" | tail -n 40
        done >&2
    fi
    for name in "${!pids[@]}"; do
        stop "${pids[$name]}" || true
    done
    stop_postgres "$scratch/postgres"
    for host in switch 1 2 3; do
        ip netns delete "$net-$host" 2>/dev/null || true
    done
    rm -rf "$scratch"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

# Runs a command on a host.
on() { ip netns exec "$net-$1" "${@:2}"; }

# Starts a program on a host in the background: host, name, command.
start() {
    # Not by `on`: a function would run in a shell of its own, whose number this would be.
    ip netns exec "$net-$1" "${@:3}" >"$scratch/$2.out" 2>"$scratch/$2.log" </dev/null &
    pids[$2]=$!
}

# Waits until a file has a line that matches, and prints the first.
wait_for() {
    local file=$1 pattern=$2 seconds=$3
    for _ in $(seq $((seconds * 20))); do
        grep -m1 -E -- "$pattern" "$file" 2>/dev/null && return
        sleep 0.05
    done
    fail "no line like '$pattern' in ${file##*/} within $seconds s"
}

client() { on 1 "$nereid" --url http://10.77.2.1:8080 --api-key "$key" --json "$@"; }

# Evaluates a Python expression over the JSON `it` from standard input.
json() { "$venv/bin/python" -c "import json, sys; it = json.load(sys.stdin); print($1)"; }

seconds() { date +%s.%N; }

# One network to Postgres and one to everything else, so that either can be cut by itself.
make_hosts() {
    local host wire
    for wire in db net; do
        ip -n "$net-switch" link add "$wire" type bridge
        ip -n "$net-switch" link set "$wire" up
    done
    for host in 1 2 3; do
        ip netns add "$net-$host"
        ip -n "$net-$host" link set lo up
        for wire in db net; do
            ip link add "$wire" netns "$net-$host" type veth peer name "$wire$host" netns "$net-switch"
            ip -n "$net-switch" link set "$wire$host" master "$wire" up
            ip -n "$net-$host" link set "$wire" up
        done
        ip -n "$net-$host" address add "10.77.1.$host/24" dev db
        ip -n "$net-$host" address add "10.77.2.$host/24" dev net
    done
}

# A frame into a port without a bridge is dropped: nobody gets an answer, and nobody an error.
cut_from_postgres() { ip -n "$net-switch" link set "db$1" nomaster; }
heal() { ip -n "$net-switch" link set "db$1" master db; }

start_postgres_on_1() {
    local user=nobody data=$scratch/postgres/data
    POSTGRES_BIN=$(find_postgres)
    id postgres &>/dev/null && user=postgres
    mkdir "$scratch/postgres"
    chown "$user" "$scratch/postgres"
    cd /
    runuser -u "$user" -- "$POSTGRES_BIN/initdb" -D "$data" -U nereid -A trust -E UTF8 --locale=C >/dev/null
    echo "host all nereid 10.77.1.0/24 trust" >>"$data/pg_hba.conf"
    on 1 runuser -u "$user" -- "$POSTGRES_BIN/pg_ctl" -D "$data" -l "$scratch/postgres/log" -w start \
        -o "-c listen_addresses=10.77.1.1 -c unix_socket_directories=$scratch/postgres" >/dev/null
}

start_worker() {
    NEREID__WORKER__LISTEN=10.77.2.$1:8090 NEREID__WORKER__DATA_DIR=$scratch/worker-$1 \
        start "$1" "worker-$1" "$nereid" worker
    wait_for "$scratch/worker-$1.out" "takes jobs" 30 >/dev/null
}

job() {
    cat <<JSON
{"kind": "train", "spec": {
  "model": "digits", "dataset": "digits",
  "network": {"layers": [
    {"type": "Flatten"}, {"type": "Dense", "units": 32, "activation": "relu"},
    {"type": "Dense", "units": 10}]},
  "loss": {"type": "sparse_categorical_crossentropy"}, "metrics": ["accuracy"],
  "fit": {"epochs": $1, "batch_size": 32, "test_split": 0.2, "seed": 1},
  "callbacks": [{"type": "checkpoint", "every_steps": 500}]}}
JSON
}

submit() { job "$1" | client job submit --file - | json 'it["id"]'; }

[[ -x $nereid ]] || fail "no $nereid: cargo build"

say "three hosts"
install_clients
make_hosts
start_postgres_on_1
start 1 moto "$venv/bin/moto_server" --host 10.77.2.1 --port 9000
wait_for "$scratch/moto.log" 'Running on http://' 30 >/dev/null
export DATABASE_URL="postgres://nereid@10.77.1.1:5432/postgres?sslmode=disable"
export NEREID__OBJECTS__BUCKET=netns NEREID__OBJECTS__ENDPOINT=http://10.77.2.1:9000
export NEREID__OBJECTS__REGION=us-east-1 AWS_ACCESS_KEY_ID=netns AWS_SECRET_ACCESS_KEY=netns-secret
export NEREID__WORKER__LEASE=${lease}s NEREID__WORKER__HEARTBEAT=1s
export NEREID__LOG__FILTER=info,nereid_worker=debug
on 1 "$nereid" migrate
key=$(on 1 "$nereid" key create --role admin | grep -o 'nrd_[^ ]*' | head -n 1)
start 1 api "$nereid" api --listen 10.77.2.1:8080
wait_for "$scratch/api.out" 'API +http://' 30 >/dev/null
start_worker 2
start_worker 3
client dataset add digits --file "$assets/digits.csv.gz" --label-column label --shape 8,8,1 >/dev/null

say "a training, and its worker is cut off from Postgres"
id=$(submit 3000)
found=$(cd "$scratch" && for _ in $(seq 400); do
    grep -l "checkpoint stored.*$id" worker-*.log && break
    sleep 0.05
done) || true
[[ $found =~ ^worker-([23])\.log$ ]] || fail "nobody trains job $id: '$found'"
cut=${BASH_REMATCH[1]}
other=$((5 - cut))
cut_from_postgres "$cut"
cut_at=$(seconds)
echo "worker $cut trained job $id and is cut off"
wait_for "$scratch/worker-$other.log" "job started.*$id" $((lease + 10)) >/dev/null
took=$(echo "$(seconds) - $cut_at" | bc)
echo "worker $other has the job after $took s (lease: $lease s)"
[[ $(echo "$took <= $lease + 2" | bc) = 1 ]] || fail "that is later than the lease and 2 s"
wait_for "$scratch/worker-$cut.log" "attempt was lost.*$id|$id.*attempt was lost" $((lease + 2))
[[ $(client job get "$id" | json 'it["status"]') = running ]] || fail "the job no longer runs"

client job watch "$id" >/dev/null || fail "job $id did not succeed"
versions=$(on 1 curl -fsS -H "authorization: Bearer $key" http://10.77.2.1:8080/v1/models/digits/versions)
[[ $(json '[v["lineage"]["job_id"] for v in it["items"]]' <<<"$versions") = "['$id']" ]] ||
    fail "not one version of job $id: $versions"
attempts=$(on 1 curl -fsS -H "authorization: Bearer $key" "http://10.77.2.1:8080/v1/jobs/$id/attempts")
[[ $(json '[a["reason"] for a in it["items"]]' <<<"$attempts") = "['lease_lost', 'completed']" ]] ||
    fail "attempts: $attempts"
grep -q "version published.*$id" "$scratch/worker-$other.log" || fail "worker $other did not publish"
if grep -q "version published" "$scratch/worker-$cut.log"; then
    fail "worker $cut published, too"
fi
echo "job $id ended on worker $other with one version"

say "the network is back"
heal "$cut"
stop "${pids[worker-$other]}" || fail "worker $other ended with $?"
unset "pids[worker-$other]"
id=$(submit 20)
client job watch "$id" >/dev/null || fail "job $id did not succeed"
grep -q "version published.*$id" "$scratch/worker-$cut.log" || fail "worker $cut did not publish job $id"
echo "worker $cut takes jobs again"
for name in "worker-$cut" api; do
    stop "${pids[$name]}" || fail "$name ended with $?"
    unset "pids[$name]"
done

say "done"
