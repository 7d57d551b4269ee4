# shellcheck shell=bash
# Python's programs that Nereid is tried with, in a virtual environment that is kept. To be sourced.

venv=${XDG_CACHE_HOME:-$HOME/.cache}/nereid/clients

# Installs what requirements.txt says, unless that was done before.
install_clients() {
    local wanted
    wanted=$(dirname "${BASH_SOURCE[0]}")/requirements.txt
    if cmp -s "$wanted" "$venv/requirements.txt"; then
        return
    fi
    if ! python3 -c 'import venv, ensurepip' 2>/dev/null && [[ $EUID -eq 0 ]]; then
        apt-get update -q && apt-get install -y -q --no-install-recommends python3-venv
    fi
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$wanted"
    cp "$wanted" "$venv/requirements.txt"
}
