#!/usr/bin/env bash
# The pair of examples that need each other, and the demo on a small file.
#
#     test_examples.sh [path/to/beam]
set -uo pipefail

beam=${1:-$BEAM_PROGRAM}
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

printf '%d passed, %d failed, 0 skipped\n' "$passed" "$failed"
((failed == 0))
