"""`beam bench`: what it counts holds on any machine, however busy; what it times is not looked at.

    test_bench.py [path/to/beam]
"""
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

# The counts are those of the closing line; whoever runs this script records them.
os.environ.pop("BEAM_TEST_RESULTS", None)
sys.dont_write_bytecode = True
TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "house")]
from cases import case, check, finish, skip  # noqa: E402

BEAM = os.path.realpath(sys.argv[1] if len(sys.argv) > 1 else os.environ["BEAM_PROGRAM"])
FIELDS = ("cell contender size depth placement p50_ns p99_ns per_s cpu_ns_per_msg syscalls_per_msg "
          "allocs_per_msg rounds dropped ratio_to_raw ratio_to_bare").split()
RARE = 0.001  # a timer of the session may fall into the measured part
STORES = ("kv-commit", "kv-fanout", "kv-open")  # they keep what they are given
GROWTH = 0.01  # under a sanitizer pools still grow when the short warm-up is over


def bench(*arguments, folder=None):
    command = [BEAM, "bench", "--rounds", "1", "--duration", "5ms", "--entries", "1000", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110,
                          env={**os.environ, "TMPDIR": folder} if folder else None)
    return done.returncode, done.stdout, done.stderr


def objects(text):
    return [json.loads(line) for line in text.splitlines()]


def name(row):
    return f"{row['cell']} {row['transport']} {row['size']} B, {row['fds']} fds, {row['regime']}"


def at_most(row, field, limit):
    check(row[field] is not None and row[field] <= limit,
          f"{name(row)}: {field} is {row[field]}, limit {limit}: {row.get('error', '')}")


def option(name):
    """What this build was configured with; "" where that cannot be told."""
    cache = pathlib.Path(os.environ.get("BEAM_BUILD_DIR", "."), "CMakeCache.txt")
    found = re.search(rf"^{name}:\w+=(.*)$", cache.read_text() if cache.exists() else "", re.M)
    return found.group(1) if found else ""


status, out, err = bench("--only", "beam", "--json")
rows = everything = objects(out)

with case("bench_every_cell_ends_well"):
    check(status == 0, f"exit code {status}: {err}")
    for row in rows:
        check("error" not in row, f"{name(row)}: {row.get('error')}")
        missing = [field for field in FIELDS if field not in row]
        check(not missing, f"{name(row)}: no {missing}")
    check(len(rows) > 0, "no rows")

with case("bench_messages_allocate_nothing"):
    for row in rows:
        if row["rounds"] and row["cell"] not in STORES:
            at_most(row, "allocs_per_msg", GROWTH)

with case("bench_ring_messages_make_no_system_call"):
    ring = [row for row in rows if row["transport"] == "ring" and row["rounds"]]
    if len(os.sched_getaffinity(0)) < 2:
        skip("one processor")
    check(len(ring) > 0, "no rows")
    for row in ring:
        at_most(row, "syscalls_per_msg", RARE)

with case("bench_unix_messages_share_their_enters"):
    for row in rows:
        if row["transport"] != "unix" or not row["rounds"]:
            continue
        if row["cell"] in ("unix-rtt", "call-rtt"):
            at_most(row, "syscalls_per_msg", 2 + RARE)  # two a side and round trip
        if row["cell"] == "fd-rtt":
            at_most(row, "syscalls_per_msg", 3 + RARE)  # as plain calls
        if row["cell"] == "call-rate" and row["depth"] == 64:
            at_most(row, "syscalls_per_msg", 0.05)

with case("bench_contenders_are_measured_beside_each_other"):
    status, out, err = bench("unix-rtt", "--json")
    check(status == 0, f"exit code {status}: {err}")
    measured = [row for row in objects(out) if row["rounds"]]
    for row in measured:
        check(row["ratio_to_raw"] > 0 and row["ratio_to_bare"] > 0,
              f"{name(row)} {row['contender']}: {row['ratio_to_raw']} {row['ratio_to_bare']}")
        if row["contender"] == "raw":
            check(row["ratio_to_raw"] == 1, f"raw is {row['ratio_to_raw']} of itself")
            at_most(row, "syscalls_per_msg", 2.1)

lengths, absent = {}, set()

with case("bench_documents_are_the_same_to_all"):
    # A contender that does not read back what it wrote, or reads anything else, has an error.
    status, out, err = bench("kv", "--json")
    check(status == 0, f"exit code {status}: {err}{out}")
    rows = objects(out)
    check({row["cell"] for row in rows} >= {"kv-encode", "kv-decode", "kv-get", "kv-json-write",
                                               "kv-json-read", "kv-scan"},
          f"{ {row['cell'] for row in rows} }")
    check(all(row["cell"].startswith("kv-") for row in rows), "other cells were measured, too")
    for row in rows:
        if row["cell"] in STORES:
            continue
        what = f"{row['cell']} {row['document']} {row['regime']} {row['contender']}"
        check("error" not in row, f"{what}: {row.get('error')}")
        if row.get("absent"):
            absent.add(row["contender"])
        if not row["rounds"]:
            continue
        check(row["p50_ns"] > 0, f"{what}: p50_ns is {row['p50_ns']}")
        if row["contender"] == "beam":
            check(row["allocs_per_msg"] == 0, f"{what}: {row['allocs_per_msg']} allocations")
            check(row["ratio_of_beam"] == 1, f"{what}: {row['ratio_of_beam']} of itself")
        if row["cell"] == "kv-scan":
            check(row["bytes"] > 100, f"{what}: {row['bytes']} bytes")
        if row["cell"] in ("kv-encode", "kv-decode"):
            check(row["bytes"] > 0 and row["bytes_ratio_of_beam"] > 0, f"{what}: {row['bytes']} bytes")
            known = lengths.setdefault((row["contender"], row["document"]), row["bytes"])
            check(row["bytes"] == known, f"{what}: {row['bytes']} bytes, elsewhere {known}")

with case("bench_of_stores_counts_what_they_share"):
    with tempfile.TemporaryDirectory() as folder:
        status, out, err = bench(*STORES, "--json", folder=folder)
        check(status == 0, f"exit code {status}: {err}{out}")
        check(os.listdir(folder) == [], f"left behind: {os.listdir(folder)}")
    of = {(row["cell"], row["contender"]): row for row in objects(out)}
    beam, single = of["kv-commit", "beam"], of["kv-commit", "single"]
    if beam["rounds"] and single["rounds"]:
        check(beam["tmpfs"] in (0, 1), f"tmpfs is {beam['tmpfs']}")
        at_most(beam, "syscalls_per_msg", 0.25)  # 64 changes share a write and a sync
        check(single["syscalls_per_msg"] >= 1, f"{single['syscalls_per_msg']} alone")
    fanout = of.get(("kv-fanout", "beam"))  # not there on one processor
    if fanout and fanout["rounds"]:
        at_most(fanout, "syscalls_per_msg", 0.25)  # changes to watches of a session share a packet
        check(fanout["memory_per_watcher"] > 0, f"{fanout['memory_per_watcher']} bytes a watcher")
    opened = of["kv-open", "beam"]
    if opened["rounds"]:
        check(opened["entries"] == 1000, f"{opened['entries']} entries")
        check(opened["bytes"] > 1000 * 48, f"{opened['bytes']} bytes")
        check(opened["mb_per_s"] is not None, "no speed")

with case("bench_that_is_killed_leaves_no_file"):
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen([BEAM, "bench", "kv-commit", "--duration", "60s"],
                                   env={**os.environ, "TMPDIR": folder}, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        until = time.monotonic() + 30
        while not list(pathlib.Path(folder).glob("*/store.kv")) and time.monotonic() < until:
            time.sleep(0.01)
        found = os.listdir(folder)
        process.send_signal(signal.SIGKILL)
        process.wait()
        while os.listdir(folder) and time.monotonic() < until:
            time.sleep(0.01)
        check(found != [], "there was no file to leave behind")
        check(os.listdir(folder) == [], f"left behind: {os.listdir(folder)}")

with case("bench_has_its_peers"):
    if option("BEAM_BENCH_PEERS") != "ON" or option("BEAM_SANITIZE"):
        skip("this build leaves them out")
    if os.environ.get("CI") != "true" and absent:
        skip(f"not there when this was built: {', '.join(sorted(absent))}")
    check(not absent, f"not there when this was built: {absent}")

with case("bench_leaves_networks_out_until_they_are_named"):
    check(not any(row["cell"].startswith("net") for row in everything), "they are in")

with case("bench_of_a_user_with_few_open_files"):
    if os.getuid() != 0:
        skip("only root can become somebody else")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        copy = shutil.copy(BEAM, folder)

        def user(soft, hard):
            def become():
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            done = subprocess.run([copy, "bench", "--rounds", "1", "--duration", "5ms", "--json",
                                   "fd-rtt", "fd-rate"], capture_output=True, text=True, timeout=110,
                                  preexec_fn=become)
            rows = objects(done.stdout)
            check(done.returncode == 0, f"exit code {done.returncode}: {done.stderr}{done.stdout}")
            return {row["cell"] for row in rows}, done.stderr

        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if hard == resource.RLIM_INFINITY or hard >= 16384:  # what a desktop gives its users
            check(user(1024, hard)[0] == {"fd-rtt", "fd-rate"}, "rows are missing")
        cells, err = user(256, 4096)
        check(cells == {"fd-rtt"} and "left out" in err, f"{cells}: {err}")

with case("bench_refuses_what_it_does_not_know"):
    for wrong in (["nosuch"], ["--rounds", "0"], ["--rounds", "1x"], ["--duration", "5"],
                  ["--duration", "0ms"], ["--entries", "0"], ["--only"], ["--only", "nosuch"], ["--nosuch"]):
        status, out, err = bench(*wrong)
        check(status == 2 and out == "" and err.startswith("beam bench: "),
              f"{wrong}: exit code {status}, {out!r}, {err!r}")

finish()
