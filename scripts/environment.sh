# Shared by scripts/demo, scripts/test and scripts/bench: a Python environment with exactly what a lock file names.
# Sourced by bash from the top of the repository.

say() {
    printf '==> %s\n' "$*"
}

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

# The first Python of at least 3.11.
find_python() {
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    fail "scanseal needs Python 3.11 or later and found none on the PATH. Debian 12: apt-get install python3 python3-venv"
}

# Runs a command as root, or fails quietly where that would need a password.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo --non-interactive "$@" 2>/dev/null
    fi
}

# install_debian_packages PACKAGE...: what is missing of them, as far as this machine allows it.
install_debian_packages() {
    local package missing=()
    command -v dpkg-query >/dev/null || return 1
    for package in "$@"; do
        if [ "$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
            missing+=("$package")
        fi
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if as_root true; then
        say "Installing the Debian packages ${missing[*]}"
        as_root apt-get update -qq &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "${missing[@]}" \
                >/dev/null && return 0
    fi
    say "Not installed: ${missing[*]}. To get them: apt-get install ${missing[*]}"
    return 1
}

# install_pkcs11_provider: what lets OpenSSL sign with the keys of tokens. Debian 12 has it in its backports only; they
# get a source of their own, at the mirror that this machine takes Debian 12 from.
install_pkcs11_provider() {
    local mirror
    if grep -qs '^VERSION_CODENAME=bookworm$' /etc/os-release && [ -z "$(apt-cache madison pkcs11-provider)" ]; then
        mirror=$(apt-get indextargets --format '$(SITE)' \
            'Created-By: Packages' 'Origin: Debian' 'Codename: bookworm' 'Component: main' | head -n 1)
        [ -z "$mirror" ] || printf '%s\n' 'Types: deb' "URIs: $mirror" 'Suites: bookworm-backports' 'Components: main' \
            'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg' |
            as_root tee /etc/apt/sources.list.d/scanseal-backports.sources >/dev/null || return 1
    fi
    install_debian_packages pkcs11-provider
}

# new_environment PYTHON DIRECTORY: an empty environment. Debian's bare python3 has no ensurepip: then the pip of the
# system fills the environment, or else python3-venv is installed where that is allowed.
new_environment() {
    if ! "$1" -c 'import ensurepip' 2>/dev/null; then
        if "$1" -m pip --version >/dev/null 2>&1; then
            "$1" -m venv --clear --without-pip "$2"
            return
        fi
        install_debian_packages python3-venv ||
            fail "This Python cannot make virtual environments. Debian: apt-get install python3-venv"
    fi
    "$1" -m venv --clear "$2"
}

# lock_for_this_machine LOCK: its lines, without tpm2-pytss where the software stack that it is compiled against is missing.
lock_for_this_machine() {
    if pkg-config --exists tss2-esys 2>/dev/null; then
        cat "$1"
    else
        awk '/^[^ #]/ { left_out = /^tpm2-pytss==/ } !left_out' "$1"
    fi
}

# prepare_peer DIRECTORY LOCK: an environment with exactly what LOCK names, for a program that tests run against.
prepare_peer() {
    local python stamp
    python=$(find_python)
    stamp=$({ "$python" --version && pwd && cat "$2"; } | sha256sum)
    if [ "$(cat "$1/installed" 2>/dev/null)" = "$stamp" ]; then
        return
    fi
    say "Making a Python environment in $1 from $2"
    new_environment "$python" "$1" && install_into "$1" "$python" --require-hashes --requirement "$2" &&
        printf '%s\n' "$stamp" >"$1/installed"
}

# install_into DIRECTORY PYTHON OPTION...: with the pip of the environment, or else with that of PYTHON.
install_into() {
    local pip=("$1/bin/python" -m pip)
    [ -x "$1/bin/pip" ] || pip=("$2" -m pip --python "$1/bin/python")
    PIP_DISABLE_PIP_VERSION_CHECK=1 "${pip[@]}" install --quiet "${@:3}"
}

# prepare_environment DIRECTORY LOCK: does nothing where DIRECTORY already holds what LOCK and pyproject.toml say.
prepare_environment() {
    local python stamp
    python=$(find_python)
    stamp=$({ "$python" --version && pwd && cat pyproject.toml && lock_for_this_machine "$2"; } | sha256sum)
    if [ "$(cat "$1/installed" 2>/dev/null)" = "$stamp" ]; then
        return
    fi
    say "Making a Python environment in $1 from $2"
    new_environment "$python" "$1"
    lock_for_this_machine "$2" >"$1/requirements.lock"
    install_into "$1" "$python" --require-hashes --requirement "$1/requirements.lock"
    install_into "$1" "$python" --no-deps --no-build-isolation --editable .
    printf '%s\n' "$stamp" >"$1/installed"
}
