"""`beam bench net`: every row can be measured, of a server that somebody else has written, and nothing stays behind.

    test_bench_net.py [path/to/beam]
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

# The counts are those of the closing line; whoever runs this script records them.
os.environ.pop("BEAM_TEST_RESULTS", None)
sys.dont_write_bytecode = True
TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "house"), str(TESTS / "peers")]
from cases import case, check, finish, skip  # noqa: E402
from proxies import missing  # noqa: E402

BEAM = os.path.realpath(sys.argv[1] if len(sys.argv) > 1 else os.environ["BEAM_PROGRAM"])
CELLS = {"net-calls", "net-bulk", "net-handshake", "net-resumed", "net-idle"}


def bench(*words, folder, **environment):
    done = subprocess.run([BEAM, "bench", *words, "--json", "--rounds", "1", "--duration", "5ms"],
                          capture_output=True, text=True, timeout=250, env={**os.environ, "TMPDIR": folder, **environment})
    check(os.listdir(folder) == [], f"left behind: {os.listdir(folder)}")
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def running(folder):
    """Programs whose command line names the folder."""
    found = []
    for command in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if folder.encode() in command.read_bytes():
                found.append(command.read_bytes())
        except OSError:
            pass  # it has ended
    return found


with case("bench_of_networks_starts_servers_and_ends_them"):
    if len(os.sched_getaffinity(0)) < 2:
        skip("one processor")
    with tempfile.TemporaryDirectory(prefix="beam-bench-net-") as folder:
        status, rows, err = bench("net", "--only", "nghttpd", folder=folder)
        check(running(folder) == [], f"still running: {running(folder)}")
    check(status == 0, f"exit code {status}: {err}{rows}")
    check({row["cell"] for row in rows} == CELLS, f"{ {row['cell'] for row in rows} }")
    if any(row.get("absent") for row in rows):
        missing("nghttpd, h2load, node or openssl")
    for row in rows:
        what = f"{row['cell']} {row['transport']}"
        check("error" not in row, f"{what}: {row.get('error')}")
        if row["rounds"]:
            figure = row["bytes"] if row["cell"] == "net-idle" else row["cpu_ns_per_msg"]
            check(figure > 100, f"{what}: {figure}")

with case("bench_names_a_server_that_is_not_installed"):
    if len(os.sched_getaffinity(0)) < 2:
        skip("one processor")
    with tempfile.TemporaryDirectory(prefix="beam-bench-net-") as folder:
        status, rows, err = bench("net-calls", "--only", "h2o", folder=folder, PATH=folder)
    check(status == 0, f"exit code {status}: {err}{rows}")
    check(rows and all(row.get("absent") and "error" not in row for row in rows), f"{rows}")

finish()
