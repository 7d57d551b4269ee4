# shellcheck shell=bash
# Python's programs that Nereid is tried with, in virtual environments that are kept. To be sourced.

venv=${XDG_CACHE_HOME:-$HOME/.cache}/nereid/clients

# Installs what a list says into an environment of its own, unless that was done before.
install_list() {
    local folder=$1 wanted
    wanted=$(dirname "${BASH_SOURCE[0]}")/$2
    if cmp -s "$wanted" "$folder/requirements.txt"; then
        return
    fi
    if ! python3 -c 'import venv, ensurepip' 2>/dev/null && [[ $EUID -eq 0 ]]; then
        apt-get update -q && apt-get install -y -q --no-install-recommends python3-venv
    fi
    python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check -r "$wanted"
    cp "$wanted" "$folder/requirements.txt"
}

# Installs what requirements.txt says.
install_clients() {
    install_list "$venv" requirements.txt
}

# Installs the clients of other inference servers, which do not go together.
install_inference_clients() {
    install_list "$venv-kserve" requirements-kserve.txt
    install_list "$venv-mlserver" requirements-mlserver.txt
}
