# What the `run` scripts share, for bash: a gateway for one example, its page's server beside it, and
# the end of both. Each is started without a terminal and in a process group of its own, so that
# Ctrl-C reaches the script alone, and each is told once.
#
#   PORT                     the page's port on 127.0.0.1
#   ROWCAST__SERVER__LISTEN  the gateway's address, 127.0.0.1:8888 by default
#   ROWCAST_BIN              a rowcast that is built already; without it cargo builds one
#   DATA                     the folder of the database, examples/data/<name> by default

set -euo pipefail

examples=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "${DATA:=$examples/data/${here##*/}}"
DATA=$(cd "$DATA" && pwd)
started=()

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

# need PROGRAM PACKAGES: says what to install.
need() {
    command -v "$1" >/dev/null || fail "$1 is missing: apt-get install -y $2"
}

# === the gateway ===

# gateway ARGUMENT...: starts one in $DATA, and waits until it listens. Then $url is its address, and
# what else it says can be read from $said.
gateway() {
    local rowcast=(cargo run --release --locked --manifest-path "$examples/../Cargo.toml" --)
    if [ -n "${ROWCAST_BIN:-}" ]; then
        rowcast=("$(realpath "$ROWCAST_BIN")")
    elif ! command -v cargo >/dev/null; then
        fail "cargo is missing: install Rust, see https://rustup.rs, or name a rowcast in ROWCAST_BIN"
    fi
    cd "$DATA"
    set -m
    coproc GATEWAY { exec "${rowcast[@]}" serve "$@" </dev/null; }
    set +m
    started+=("$GATEWAY_PID")
    exec {said}<&"${GATEWAY[0]}"
    cd "$here"
    local line
    while read -r -u "$said" line; do
        url=${line#listening on }
        [ "$url" = "$line" ] || return 0
    done
    fail "the gateway did not start; ROWCAST__SERVER__LISTEN=127.0.0.1:0 takes a port that is free"
}

# The command by which the demo's gateway says that a row can be changed.
hint() {
    local _ command
    read -r -u "$said" _ && read -r -u "$said" command && echo "$command"
}

# === the page ===

# page PORT: that is $port now, unless PORT names another one.
page() {
    port=${PORT:-$1}
    ! taken || fail "port $port is taken by another program; choose another: PORT=3210 $0"
}

taken() {
    (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null
}

# begin COMMAND...: the page's server.
begin() {
    set -m
    "$@" </dev/null &
    set +m
    started+=("$!")
}

# show COMMAND: waits until the page is served, says where, and what changes a row; waits for the end.
show() {
    until taken; do
        kill -0 "${started[@]}" 2>/dev/null || fail "the page is not served"
        sleep 0.1
    done
    cat <<END

open http://127.0.0.1:$port/ in a browser, then change a row from another terminal:
  $1
Ctrl-C ends it.
END
    wait -n "${started[@]}" || true
    fail "one of the two servers has ended"
}

# === the end ===

trap finish EXIT
trap 'exit 0' INT TERM HUP

# Ends both, and waits until they are gone. Who asks a second time does not wait for what is open.
finish() {
    trap 'tell KILL' INT TERM HUP
    tell TERM
    local one
    for one in ${started[@]+"${started[@]}"}; do
        while kill -0 "$one" 2>/dev/null; do wait "$one" 2>/dev/null || true; done
    done
}

tell() {
    local group
    for group in ${started[@]+"${started[@]}"}; do kill "-$1" -- "-$group" 2>/dev/null || true; done
}
