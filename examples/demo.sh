#!/usr/bin/env bash
# The main job, on real files of this machine: a server process, client processes, the same over a network,
# and figures.
#
#     examples/demo.sh path/to/beam
#
# BEAM_DEMO_MIB: size of the large file in MiB (1024).
# BEAM_DEMO_LIMIT_S: seconds after which whatever still runs has failed (110).
# TMPDIR: where its files are made (/tmp, or /var/tmp where that has more room).
set -euo pipefail

beam=$(realpath "${1:?usage: demo.sh BEAM}")
client=$(dirname "$beam")/examples/demo_client
large_mib=${BEAM_DEMO_MIB:-1024}
limit_s=${BEAM_DEMO_LIMIT_S:-110}
step='a directory for its files'
server=
dir=

finish() {
    local status=$?
    trap - EXIT
    if [[ -n $server ]]; then
        kill -KILL "$server" || true
        wait "$server" || true
    fi 2>/dev/null
    if [[ -n $dir ]]; then
        if ((status != 0)) && [[ -n $server && -s $dir/server.log ]]; then
            sed 's/^/  the server said: /' "$dir/server.log"
        fi
        rm -rf "$dir"
    fi
    if ((status != 0)); then
        ((SECONDS < limit_s)) || step+=" (not done when the $limit_s s for the demo were up)"
        printf 'demo: FAILED: %s\n' "$step"
        exit 1
    fi
    printf 'demo: ok\n'
}
trap finish EXIT
trap 'exit 1' INT TERM

free_mib() { df -Pm "$1" | awk 'NR == 2 { print $4 }'; }

place=${TMPDIR:-/tmp}
if [[ -z ${TMPDIR:-} ]] && (($(free_mib /tmp) < large_mib + 64)); then place=/var/tmp; fi
dir=$(mktemp -d "$place/beam-demo-XXXXXX")
url=unix:$dir/b.sock

say() {
    step=$*
    printf '\n%s\n' "$*"
}

# limited COMMAND...: ends it when the time of the demo is up
limited() {
    local left=$((limit_s - SECONDS))
    timeout --foreground -k 2 "$((left > 0 ? left : 1))" "$@"
}

# run COMMAND...: shows it as somebody would type it, and its output
run() {
    local shown="${*//$beam/beam}"
    printf '  $ %s\n' "${shown//$dir/\$dir}"
    limited "$@" | sed 's/^/  /'
}

# A file of real content in seconds: random chunks, each repeated at its own offset.
make_large() {
    local file=$1 i free
    free=$(free_mib "$dir")
    if ((free < large_mib + 64)); then
        step="no room for a file of $large_mib MiB in $place ($free MiB free); set TMPDIR"
        return 1
    fi
    head -c 16M /dev/urandom >"$dir/chunk"
    for ((i = 0; i < large_mib; i += 16)); do
        ((SECONDS < limit_s)) || return 1
        printf 'chunk %d\n' "$i"
        cat "$dir/chunk"
    done >"$file"
    truncate -s "${large_mib}M" "$file"
    rm "$dir/chunk"
}

wait_for_server() {
    local i
    for ((i = 0; i < 200; i++)); do
        grep -q '^listening on ' "$dir/server.log" && break
        kill -0 "$server" 2>/dev/null || break
        sleep 0.05
    done
    grep -q '^listening on ' "$dir/server.log"
}

end_server() {
    kill -TERM "$server"
    while kill -0 "$server" 2>/dev/null; do
        ((SECONDS < limit_s)) || return 1
        sleep 0.05
    done
    wait "$server"
    server=
}

say "1. a server process with two reactors"
"$beam" serve echo clock reverse usr=file:/usr tmp=file:"$dir" \
    --listen "$url" --reactors 2 --channels 16384 2>"$dir/server.log" &
server=$!
wait_for_server
printf '  $ beam serve echo clock reverse usr=file:/usr tmp=file:$dir \\\n'
printf '        --listen unix:$dir/b.sock --reactors 2 --channels 16384 &\n'
sed "s|$dir|\$dir|; s/^/  /" "$dir/server.log"

say "2. an echo"
run "$beam" call "$url" echo text=hello answer:=42

say "3. a file by its descriptor, saved with beam call --save-fd and compared"
# What find may not look into does not matter here.
small=$(cd /usr && { find bin lib -maxdepth 2 -type f -readable -size +200k -size -20000k \
    2>/dev/null || true; } | sort | awk 'NR == 1 || NR == 51 || NR == 101')
[[ -n $small ]]
for path in $small; do
    run "$beam" call "$url" usr path="$path" --save-fd "$dir/copy"
    cmp "$dir/copy" "/usr/$path"
    rm "$dir/copy"
done

say "4. the same and a file of $large_mib MiB, read through the descriptor by a client process"
make_large "$dir/large"
files=()
for path in $small; do files+=(usr /usr "$path"); done
limited "$client" "$url" "${files[@]}" tmp "$dir" large | sed "s|$dir|\$dir|; s/^/  /"
rm "$dir/large"

say "5. events: five ticks of a clock, ten a second"
run "$beam" watch "$url" clock rate:=10 count:=5 | tee "$dir/ticks"
(($(grep -c 'n:=' "$dir/ticks") == 5))

say "6. the server drains and ends on SIGTERM"
end_server
printf '  exit code 0\n'

say "7. over a network: TLS with certificates for trying, at both ends"
run "$beam" cert "$dir/certs" --client uri:spiffe://demo/ada | sed "/^  next:/,\$d; s|$dir|\$dir|"
certs=$dir/certs
mine=(--cert "$certs/client.pem" --key "$certs/client.key")
: >"$dir/server.log" # the first server's lines are not this one's
"$beam" serve echo --listen https://localhost:0 --cert "$certs/server.pem" --key "$certs/server.key" \
    --client-ca "$certs/ca.pem" 2>"$dir/server.log" &
server=$!
wait_for_server
printf '  $ beam serve echo --listen https://localhost:0 --cert $dir/certs/server.pem \\\n'
printf '        --key $dir/certs/server.key --client-ca $dir/certs/ca.pem &\n'
sed "s/^/  /" "$dir/server.log"
https=$(sed -n 's/^listening on //p' "$dir/server.log")
run "$beam" call "$https" echo text=hello --ca "$certs/ca.pem" "${mine[@]}" | tee "$dir/said"
grep -q '^  text=hello$' "$dir/said"
if command -v curl >/dev/null; then
    run curl -sS --cacert "$certs/ca.pem" "${mine[@]}" -H 'content-type: application/json' \
        -d '{"text":"hello"}' -w '\n' "$https/beam/call/echo" | tee "$dir/said"
    grep -q '^  {"text":"hello"}$' "$dir/said"
fi
end_server

# One line a cell, from the JSON lines of beam bench.
table() {
    python3 -c '
import json, sys
def time(ns):
    return "-" if ns is None else f"{ns / 1000:.1f} us" if ns >= 1000 else f"{ns:.0f} ns"
print("  %-47s%9s%10s%12s%10s%14s" % ("", "p50", "p99", "per second", "cpu/msg", "by hand"))
for line in sys.stdin:
    row = json.loads(line)
    if row["contender"] != "beam":
        continue
    way = "round trip" if row["cell"].endswith("rtt") else "one way"
    fds = " + %d fd" % row["fds"] if row["fds"] else ""
    name = "%s %s, %d B%s, %s, %s" % (row["transport"], way, row["size"], fds, row["placement"],
                                      row["regime"])
    ratio = "-" if row["ratio_to_bare"] is None else "%.2fx" % row["ratio_to_bare"]
    print("  %-47s%9s%10s%12s%10s%14s" % (name, time(row["p50_ns"]), time(row["p99_ns"]),
          format(row["per_s"] or 0, ","), time(row["cpu_ns_per_msg"]), ratio))
'
}

say "8. figures of this machine, and how they compare with io_uring written by hand for the purpose"
printf '  $ beam bench --quick (a look; beam bench measures, and explains what is compared)\n'
cells=(ring-rtt ring-rate unix-rtt unix-rate fd-rtt fd-rate)
if ! limited "$beam" bench --quick --json "${cells[@]}" 2>"$dir/bench.log" | table; then
    cat "$dir/bench.log"
    exit 1
fi
printf '  by hand: time (or rate, one way), divided by that of a loop written by hand\n\n'
