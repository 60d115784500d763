#!/usr/bin/env bash
# What `./dev fuzz` does once the programs are built; docs/fuzzing.md tells when to do what.
#
#   run.sh [SECONDS] [TARGET...]   fuzzes for so long each (60); inputs and finds are kept in build/
#   run.sh merge [TARGET...]       takes inputs that reach new code from there into the committed corpus
#   run.sh coverage [TARGET...]    counts the lines of its own files that each target's corpus reaches
#
# Fails when anything was found, and says where it lies and how to run it again.
set -euo pipefail
cd "$(dirname "$0")/../.."
programs=build/fuzz/tests inputs=build/fuzz-corpus found=build/fuzz-found logs=build/logs
corpus=tests/fuzz/corpus
corpus_len_max=$((1 << 20)) corpus_files_max=400 # of all targets; of each: they are replayed by every build

export ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1:detect_leaks=1
export UBSAN_OPTIONS=print_stacktrace=1
options=(-max_len=4096 -timeout=25 -print_final_stats=1)

say() { printf '%s\n' "$*"; }

# The words that are left, or all targets.
choose() {
    local program all=()
    for program in tests/fuzz/fuzz_*.c; do
        program=${program##*/fuzz_} all+=("${program%.c}")
    done
    targets=("$@")
    (($# > 0)) || targets=("${all[@]}")
    for program in "${targets[@]}"; do
        [[ " ${all[*]} " == *" $program "* ]] && continue
        say "there is no fuzz target $program; there are ${all[*]}" >&2
        exit 2
    done
}

# The last of libFuzzer's figures: of LOG, what stands behind NAME
figure() { grep -o "$2: [0-9]*" "$1" | tail -n 1 | grep -o '[0-9]*$' || echo 0; }
statistic() { sed -n "s/^stat::$2: *//p" "$1" | tail -n 1 | grep . || echo 0; }

# What became of it so far: over itself on a terminal, else every ten seconds
progress() {
    local line
    line=$(printf '%-10s %5d of %d s, %s edges, %s features' "$1" "$2" "$seconds" \
        "$(figure "$log" cov)" "$(figure "$log" ft)")
    if [[ -t 1 ]]; then
        printf '\r%s' "$line"
    elif (($2 % 10 == 0 && $2 > 0)); then
        say "$line"
    fi
}

# fuzz TARGET: a row of the table, and what was found, are left in rows and finds
fuzz() {
    local name=$1 log=$logs/fuzz-$1.log since=$SECONDS status=0 find
    mkdir -p "$inputs/$name" "$corpus/$name" "$found" "$logs"
    "$programs/fuzz_$name" -max_total_time="$seconds" "${options[@]}" \
        -artifact_prefix="$found/$name-" "$inputs/$name" "$corpus/$name" >"$log" 2>&1 </dev/null &
    local pid=$!
    while kill -0 $pid 2>/dev/null; do
        progress "$name" $((SECONDS - since))
        sleep 1 || true
    done
    wait $pid || status=$?
    ((status != 72)) || status=0 # interrupted, which finds nothing
    if [[ -t 1 ]]; then printf '\r%60s\r' ''; fi
    find=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
    rows+=("$(printf '%-10s %12s %10s %8s %10s %6s' "$name" \
        "$(statistic "$log" number_of_executed_units)" "$(statistic "$log" average_exec_per_sec)" \
        "$(figure "$log" cov)" "$(figure "$log" ft)" $((status != 0)))")
    ((status == 0)) && return
    finds+=("$name: $(grep -m 1 -E 'not so: |^SUMMARY: |runtime error: ' "$log" || say "ended with $status")"
        "    the log of it    $log")
    [[ -z $find ]] || finds+=("    to run it again  $programs/fuzz_$name $find")
}

# The committed inputs stay as they are; a few that are enough for all edges are added.
merge() {
    local name=$1 files copy
    mkdir -p "$inputs/$name" "$corpus/$name" "$logs"
    copy=$(mktemp -d) # a fuzzer that runs takes files away
    cp -r "$inputs/$name" "$copy"
    "$programs/fuzz_$name" -merge=1 -use_counters=0 -max_len=4096 "$corpus/$name" "$copy/$name" \
        >"$logs/fuzz-merge-$name.log" 2>&1 </dev/null || {
        rm -rf "$copy"
        tail -n 5 "$logs/fuzz-merge-$name.log"
        say "$name: not merged; the whole output is in $logs/fuzz-merge-$name.log"
        return 1
    }
    rm -rf "$copy"
    files=$(find "$corpus/$name" -type f | wc -l)
    say "$(printf '%-10s %4d files' "$name" "$files")"
    ((files <= corpus_files_max)) || { say "$name: more than $corpus_files_max"; return 1; }
}

case ${1:-} in
merge)
    shift
    choose "$@"
    status=0
    for name in "${targets[@]}"; do merge "$name" || status=1; done
    len=$(find "$corpus" -type f -exec cat {} + | wc -c)
    say "$len bytes in all; git add $corpus"
    ((len <= corpus_len_max)) || { say "more than $corpus_len_max"; status=1; }
    exit $status
    ;;
coverage)
    shift
    choose "$@"
    exec python3 tests/fuzz/coverage.py "${targets[@]}"
    ;;
esac

seconds=60
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
    seconds=$1
    shift
fi
choose "$@"
rows=() finds=() stop=
trap 'stop=1' INT # libFuzzer ends by itself then; what was done so far is counted
for name in "${targets[@]}"; do
    [[ -z $stop ]] && fuzz "$name"
done
say "target       executions      per s    edges   features  finds"
printf '%s\n' "${rows[@]}"
((${#finds[@]} == 0)) && exit
say ""
printf '%s\n' "${finds[@]}"
exit 1
