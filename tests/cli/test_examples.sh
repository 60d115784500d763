#!/usr/bin/env bash
# The pair of examples that need each other, and the demo on a small file: how it ends well, and how
# it does not.
#
#     test_examples.sh [path/to/beam]
set -uo pipefail

beam=$(realpath "${1:-$BEAM_PROGRAM}")
examples=$(dirname "$beam")/examples
source_dir=$(cd "$(dirname "$0")/../.." && pwd)
dir=$(mktemp -d)
passed=0 failed=0 server=
trap '[[ -z $server ]] || kill -KILL "$server" 2>/dev/null; rm -rf "$dir"' EXIT

verdict() { # NAME STATUS OUTPUT
    if (($2 == 0)); then
        printf 'ok   %s\n' "$1"
        ((passed += 1))
    else
        printf 'FAIL %s\n%s\n' "$1" "$3"
        ((failed += 1))
    fi
}

pair() {
    local url=unix:$dir/greet.sock text
    "$examples/greet_server" "$url" &
    server=$!
    until [[ -S $dir/greet.sock ]]; do
        kill -0 "$server" || return 1
    done
    text=$("$examples/greet_client" "$url" ada) && [[ $text == 'hello, ada' ]] || return 1
    text=$("$beam" call "$url" greet name=ada) && [[ $text == 'text=hello, ada' ]] || return 1
    kill -TERM "$server"
    wait "$server" || return 1
    server=
    [[ ! -e $dir/greet.sock ]]
}
pair >"$dir/output" 2>&1 # not in a subshell: the trap has to know the server
verdict 'greet_client is greeted by greet_server, which ends with 0 on SIGTERM' $? \
    "$(cat "$dir/output")"

output=$(TMPDIR=$dir BEAM_DEMO_MIB=64 bash "$source_dir/examples/demo.sh" "$beam" 2>&1)
status=$?
[[ $status == 0 && $output != *$'\ndemo: ok' ]] && status=1
verdict 'the demo ends with "demo: ok"' $status "$output"

# A program in beam's place that does what it is told at the verb it is told.
mkdir "$dir/broken"
ln -s "$examples" "$dir/broken/examples"
cat >"$dir/broken/beam" <<END
#!/usr/bin/env bash
[[ \$1 != serve ]] || echo \$\$ >$dir/server
[[ \$1 != "\$BROKEN_VERB" ]] || eval "\$BROKEN"
exec "$beam" "\$@"
END
chmod +x "$dir/broken/beam"

# fails NAME WANTED SETTING...: the demo ends with 1, names the step, and leaves nothing behind
fails() {
    local name=$1 wanted=$2 output status last
    shift 2
    mkdir "$dir/tmp"
    output=$(env TMPDIR="$dir/tmp" BEAM_DEMO_MIB=64 BEAM_DEMO_LIMIT_S=60 "$@" \
        bash "$source_dir/examples/demo.sh" "$dir/broken/beam" 2>&1)
    status=$?
    last=${output##*$'\n'}
    if [[ $status == 1 && $last == 'demo: FAILED: '*$wanted* && -z $(ls "$dir/tmp") ]] &&
        ! kill -0 "$(cat "$dir/server" 2>/dev/null)" 2>/dev/null; then
        status=0
    else
        status=1
    fi
    rm -rf "$dir/tmp" "$dir/server"
    verdict "$name" $status "$output"
}
fails 'the demo says so when the server does not start' '1. a server' \
    BROKEN_VERB=serve BROKEN='exit 3'
fails 'the demo says so when the server dies on the way' '5. events' \
    BROKEN_VERB=watch BROKEN="kill -KILL \$(cat $dir/server)"
fails 'the demo says so when the server stands still' '2. an echo (not done when the 3 s' \
    BROKEN_VERB=call BROKEN="kill -STOP \$(cat $dir/server)" BEAM_DEMO_LIMIT_S=3
fails 'the demo says so when a figure cannot be measured' '8. figures' \
    BROKEN_VERB=bench BROKEN='exit 1'
fails 'the demo says so when there is no room' 'no room for a file of 1000000000 MiB' \
    BEAM_DEMO_MIB=1000000000
fails 'the demo says so when there is no place for its files' 'a directory for its files' \
    TMPDIR="$dir/missing"

# With the limit of 1024 the client has most of its requests still to send when the server dies.
flood() {
    local lines=0 client
    "$beam" serve clock reverse --listen "unix:$dir/flood.sock" &
    server=$!
    until [[ -S $dir/flood.sock ]]; do
        kill -0 "$server" || return 1
    done
    timeout 30 "$examples/demo_client" "unix:$dir/flood.sock" >"$dir/flood" &
    client=$!
    until grep -q '^ten thousand' "$dir/flood"; do
        kill -0 "$client" || return 1
    done
    kill -KILL "$server"
    server=
    wait "$client"
    [[ $? == 1 ]]
}
flood >"$dir/output" 2>&1
verdict 'the client of the demo does not wait for a server that died' $? "$(cat "$dir/output")"

printf '%d passed, %d failed, 0 skipped\n' "$passed" "$failed"
((failed == 0))
