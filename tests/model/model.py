"""Has spin look through all states of a model, once for each row of a table: what it is compiled with,
whether it holds, and what that says.

A variant that lacks an ordering fails with store buffers and holds without them (-DSC): so it is the
ordering that it lacks.
"""
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
HOLDS, FAILS = True, False


def errors_of(model, defines):
    """How many errors the checker finds, over all states."""
    with tempfile.TemporaryDirectory() as where:
        def run(*command):
            return subprocess.run(command, cwd=where, check=True, capture_output=True, text=True).stdout
        for name in (f"{model}.pml", "memory.pml"):
            shutil.copy(os.path.join(HERE, name), where)
        run("spin", "-a", *defines.split(), f"{model}.pml")
        run(os.environ.get("CC", "cc"), "-O0", "-w", "-DSAFETY", "-o", "pan", "pan.c")
        report = run("./pan", "-m100000")
        if "max search depth too small" in report:
            raise SystemExit(f"the search was cut short:\n{report}")
        return int(re.search(r"errors: (\d+)", report).group(1))


def check(model, rows):
    if not shutil.which("spin"):
        print("spin is not installed (Debian: spin)")
        sys.exit(77)
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = pool.map(lambda row: errors_of(model, row[0]), rows)
        for (_, holds, text), errors in zip(rows, found):
            good = (errors == 0) == holds
            failed += not good
            print(f"{'ok  ' if good else 'FAIL'} {text} ({errors} errors)", flush=True)
    print(f"{len(rows) - failed} passed, {failed} failed, 0 skipped")
    sys.exit(1 if failed else 0)
