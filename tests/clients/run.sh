#!/usr/bin/env bash
# Tries Nereid with programs that others wrote, all from PyPI:
#
#   * openapi-python-client makes a client out of openapi/openapi.json, which then runs the main job;
#   * tritonclient (HTTP and gRPC), KServe's and MLServer's clients infer, unchanged;
#   * Schemathesis holds the running server to its document, with right and wrong requests;
#   * the demo runs on moto's S3 and a Postgres of its own instead of what Nereid brings along.
#
# NEREID_FUZZ_EXAMPLES (15) and NEREID_FUZZ_SEED (1) make Schemathesis try more, or other things.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$root/tests/clients
assets=$root/crates/nereid/assets
nereid=${CARGO_TARGET_DIR:-$root/target}/debug/nereid
bucket=nereid-clients

# Nothing of the caller's configuration, nor of a proxy, gets in between.
unset DATABASE_URL NEREID_URL NEREID_API_KEY NEREID_CONFIG NEREID_DATA_DIR
unset AWS_PROFILE AWS_SESSION_TOKEN
export no_proxy=127.0.0.1,localhost NO_PROXY=127.0.0.1,localhost
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1

# shellcheck source=tests/clients/venv.sh
source "$here/venv.sh"
# shellcheck source=crates/nereid-store/throwaway-postgres.sh
source "$root/crates/nereid-store/throwaway-postgres.sh"

scratch=$(mktemp -d /tmp/nereid-clients.XXXXXX)
chmod 755 "$scratch"
pids=()

stop() {
    local pid
    for pid in "$@"; do
        kill -TERM "$pid" 2>/dev/null || continue
        for _ in $(seq 300); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$pid" 2>/dev/null && echo "$pid did not end by itself" >&2
        wait "$pid" 2>/dev/null || true
    done
}

cleanup() {
    local status=$?
    trap - EXIT
    stop "${pids[@]}"
    stop_postgres "$scratch/postgres"
    if [[ $status -ne 0 ]]; then
        for log in "$scratch"/*.log; do
            [[ -s $log ]] || continue
            printf '\n-- the end of %s\n' "${log##*/}"
            tail -n 30 "$log"
        done >&2
    fi
    rm -rf "$scratch"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

say() { printf '\n-- %s (%s)\n' "$*" "$(date +%T)"; }

# Waits until a file has a line that matches, and prints the match's last word.
wait_for() {
    local pid=$1 file=$2 pattern=$3 line
    for _ in $(seq 600); do
        if line=$(grep -m1 -E -- "$pattern" "$file" 2>/dev/null); then
            echo "${line##* }"
            return
        fi
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    echo "no line like '$pattern' in ${file##*/}" >&2
    return 1
}

# Starts `nereid dev` and sets `api`, `grpc` and `server`.
start_server() {
    local name=$1
    "$nereid" dev --port 0 --s3-port 0 --data-dir "$scratch/$name" \
        >"$scratch/$name.out" 2>"$scratch/$name.log" </dev/null &
    server=$!
    pids+=("$server")
    api=$(wait_for "$server" "$scratch/$name.out" '^  API  +http://')
    grpc=$(wait_for "$server" "$scratch/$name.out" '^  gRPC ')
}

fuzz() {
    (
        cd "$scratch"
        "$venv/bin/schemathesis" --config-file "$here/schemathesis.toml" run "$api/openapi.json" \
            --max-examples "${NEREID_FUZZ_EXAMPLES:-15}" --seed "${NEREID_FUZZ_SEED:-1}" \
            --no-color "$@" </dev/null
    )
    kill -0 "$server" || {
        echo "the server died" >&2
        return 1
    }
    if grep -E 'panicked at' "$scratch/dev.log" >&2; then
        return 1
    fi
}

say "install"
install_clients
install_inference_clients
if [[ ! -x $nereid ]]; then
    (cd "$root" && cargo build --locked)
fi

say "a generated client"
"$venv/bin/openapi-python-client" generate --path "$root/openapi/openapi.json" --meta none \
    --config "$here/openapi-python-client.yaml" --output-path "$scratch/python/nereid_client" \
    --fail-on-warning
start_server dev
PYTHONPATH=$scratch/python "$venv/bin/python" "$here/generated.py" "$api" \
    "$assets/digits.csv.gz" "$assets/digits-job.json" | tee "$scratch/generated.out"
NEREID_TEST_JOB=$(wait_for $$ "$scratch/generated.out" '^job ')
export NEREID_TEST_JOB

say "inference clients of NVIDIA, KServe and MLServer"
"$venv/bin/python" "$here/inference.py" "$api" "$grpc" "$assets/digits.csv.gz" \
    "$assets/digits-job.json"
"$venv-kserve/bin/python" "$here/kserve_inference.py" "$api" "$grpc" "$assets/digits.csv.gz"
"$venv/bin/python" -c 'import json, sys
tensor = {"name": "input", "shape": [1, 64], "datatype": "FP32", "data": list(range(64))}
sys.stdout.write((json.dumps({"inputs": [tensor]}) + "\n") * 6)' >"$scratch/mlserver.in"
"$venv-mlserver/bin/mlserver" infer --url "${api#http://}" --model-name clients-digits \
    --input-data-path "$scratch/mlserver.in" --output-data-path "$scratch/mlserver.json"
answers=$(grep -c '"probabilities"' "$scratch/mlserver.json")
[[ $answers -eq 6 ]] || {
    echo "MLServer's client got $answers of 6 answers" >&2
    exit 1
}

say "fuzzing what reads and adds"
fuzz --exclude-method DELETE --exclude-operation-id drain_worker
say "fuzzing everything"
fuzz
stop "$server"
pids=()

say "S3 and Postgres of others"
"$venv/bin/moto_server" --host 127.0.0.1 --port 0 >"$scratch/moto.log" 2>&1 </dev/null &
pids+=($!)
endpoint=$(wait_for $! "$scratch/moto.log" 'Running on http://')
start_postgres "$scratch/postgres"
export AWS_ACCESS_KEY_ID=clients AWS_SECRET_ACCESS_KEY=clients-secret AWS_DEFAULT_REGION=us-east-1
DATABASE_URL="postgres://nereid@localhost/postgres?host=$POSTGRES_SOCKET" \
    NEREID__OBJECTS__BUCKET=$bucket \
    NEREID__OBJECTS__ENDPOINT=$endpoint \
    NEREID__OBJECTS__REGION=us-east-1 \
    timeout 120 "$nereid" demo --exit-when-done --port 0 --s3-port 0 \
    --data-dir "$scratch/demo" >"$scratch/demo.out" 2>"$scratch/demo.log" </dev/null || {
    cat "$scratch/demo.out" >&2
    exit 1
}
grep -F 'digits version 1' "$scratch/demo.out"
if [[ -e $scratch/demo/postgres || -e $scratch/demo/s3 ]]; then
    echo "the demo started a Postgres or S3 of its own" >&2
    exit 1
fi
"$venv/bin/python" "$here/verify_bucket.py" "$endpoint" "$bucket"

say "done"
