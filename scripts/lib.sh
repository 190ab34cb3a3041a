# What the scripts share. Sourced, never run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '\033[1m▸ %s\033[0m\n' "$*" >&2; }
die() { printf '✗ %s\n' "$*" >&2; exit 1; }

# apt NAME.. installs Debian packages that are missing; as root or through sudo.
apt() {
    local missing=()
    for package in "$@"; do dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package"); done
    [ ${#missing[@]} -eq 0 ] && return 0
    command -v apt-get >/dev/null || die "missing: ${missing[*]}; install them with this system's package manager and run again"
    local sudo=()
    [ "$(id -u)" -eq 0 ] || sudo=(sudo)
    say "installing ${missing[*]}"
    "${sudo[@]}" apt-get update -qq >&2 || true
    DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
        die "apt-get could not install ${missing[*]}"
}

# cargo_tool COMMAND CRATE VERSION installs a cargo subcommand once, built fast rather than small.
cargo_tool() {
    cargo "$1" --version >/dev/null 2>&1 && return 0
    say "building $2 $3 (once for this machine)"
    CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}/tools" cargo install --quiet --locked --debug "$2" --version "$3" >&2 || die "could not build $2"
}

# free_port prints a TCP port that nothing listens on.
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# find_python prints a Python of at least 3.12, or says how to get one.
find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.14 python3.13 python3.12 python3 "$HOME"/.pyenv/versions/3.1[2-9]*/bin/python /opt/python/3.1[2-9]*/bin/python3; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; then
            command -v "$candidate"
            return 0
        fi
    done
    die "the published SDK needs Python 3.12 or newer, and none was found: install one (pyenv install 3.12, or your system's package) and set PYTHON=/path/to/python"
}
