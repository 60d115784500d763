#!/usr/bin/env bash
# The example whose messages are Protocol Buffers. Without protobuf-c it is not built, which is no
# reason to go without it where CI=true.
#
#     test_protobuf.sh [path/to/beam]
set -uo pipefail

example=$(dirname "$(realpath "${1:-$BEAM_PROGRAM}")")/examples/protobuf_orders
if [[ ! -x $example ]]; then
    echo 'protobuf-c or protoc-c was not found (Debian: libprotobuf-c-dev protobuf-c-compiler)'
    [[ ${CI:-} == true ]] && exit 1
    exit 77
fi

output=$("$example" 2>&1)
status=$?
wanted='3 x pencils: 7.50
INVALID_ARGUMENT: json cannot be converted to protobuf'
if [[ $status != 0 || $output != "$wanted" ]]; then
    printf 'it ended with %d and said:\n%s\n' "$status" "$output"
    exit 1
fi
