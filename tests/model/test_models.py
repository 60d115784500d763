"""The protocols between threads hold in their models, and the models can fail, for the right reason.

Each row: a model, what it is compiled with, whether it holds, and what that says. A variant that lacks an
ordering fails with store buffers and holds without them (-DSC): so it is the ordering that it lacks.
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

ROWS = []
for shape, name in (("", "sleep"), (" -DMAILBOX", "sleep, mailbox")):
    ROWS += [
        ("sleep", f"-DVARIANT=0{shape}", HOLDS, f"{name}: the protocol loses no wake-up"),
        ("sleep", f"-DVARIANT=0 -DSC{shape}", HOLDS, f"{name}: nor without store buffers"),
        ("sleep", f"-DVARIANT=1{shape}", FAILS, f"{name}: a plain store by the consumer loses one"),
        ("sleep", f"-DVARIANT=1 -DSC{shape}", HOLDS, f"{name}: ... by its ordering alone"),
        ("sleep", f"-DVARIANT=2{shape}", FAILS, f"{name}: a plain look by the producer loses one"),
        ("sleep", f"-DVARIANT=2 -DSC{shape}", HOLDS, f"{name}: ... by its ordering alone"),
        ("sleep", f"-DVARIANT=3 -DSC{shape}", FAILS, f"{name}: not looking again loses one"),
        ("sleep", f"-DVARIANT=4 -DSC{shape}", FAILS, f"{name}: ringing late loses one"),
    ]
ROWS += [
    ("path", "-DVARIANT=0", HOLDS, "full ring: whoever waits for room hears of it"),
    ("path", "-DVARIANT=0 -DSC", HOLDS, "full ring: also without store buffers"),
    ("path", "-DVARIANT=1", FAILS, "full ring: a plain look by the consumer misses the question"),
    ("path", "-DVARIANT=1 -DSC", HOLDS, "full ring: ... by its ordering alone"),
    ("path", "-DVARIANT=2", FAILS, "full ring: a plain question is missed"),
    ("path", "-DVARIANT=2 -DSC", HOLDS, "full ring: ... by its ordering alone"),
    ("path", "-DVARIANT=3 -DSC", FAILS, "full ring: a question before the sleep is taken for older room"),
    ("path", "-DVARIANT=4 -DSC", FAILS, "full ring: who does not ask is not answered"),
    ("mailbox", "-DVARIANT=0", HOLDS, "mailbox: what was accepted runs, and nobody waits for ever"),
    ("mailbox", "-DVARIANT=0 -DSC", HOLDS, "mailbox: also without store buffers"),
    ("mailbox", "-DVARIANT=1", FAILS, "mailbox: coming in by a plain store loses a call"),
    ("mailbox", "-DVARIANT=1 -DSC", HOLDS, "mailbox: ... by its ordering alone"),
    ("mailbox", "-DVARIANT=2 -DSC", FAILS, "mailbox: looking before coming in loses a call"),
    ("mailbox", "-DVARIANT=3 -DSC", FAILS, "mailbox: looking for room too late misses it"),
    ("mailbox", "-DVARIANT=4", FAILS, "mailbox: a plain look for waiters misses one"),
    ("mailbox", "-DVARIANT=4 -DSC", HOLDS, "mailbox: ... by its ordering alone"),
    ("mailbox", "-DVARIANT=5 -DSC", FAILS, "mailbox: shutting it in silence leaves who waits waiting"),
    ("mailbox", "-DVARIANT=6 -DSC", FAILS, "mailbox: settling before shutting loses a call"),
]

if not shutil.which("spin"):
    print("spin is not installed (Debian: spin)")
    sys.exit(77)


def errors_of(model, defines, where):
    """How many errors the checker finds, over all states."""
    run = lambda *command: subprocess.run(command, cwd=where, check=True, capture_output=True, text=True).stdout
    for name in (f"{model}.pml", "memory.pml"):
        shutil.copy(os.path.join(HERE, name), where)
    run("spin", "-a", *defines.split(), f"{model}.pml")
    run(os.environ.get("CC", "cc"), "-O0", "-w", "-DSAFETY", "-o", "pan", "pan.c")
    report = run("./pan", "-m100000")
    if "max search depth too small" in report:
        raise SystemExit(f"the search was cut short:\n{report}")
    return int(re.search(r"errors: (\d+)", report).group(1))


def errors_of_row(row):
    with tempfile.TemporaryDirectory() as where:
        return errors_of(row[0], row[1], where)


failed = 0
with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
    for (model, defines, holds, text), errors in zip(ROWS, pool.map(errors_of_row, ROWS)):
        good = (errors == 0) == holds
        failed += not good
        print(f"{'ok  ' if good else 'FAIL'} {text} ({errors} errors)", flush=True)
print(f"{len(ROWS) - failed} passed, {failed} failed, 0 skipped")
sys.exit(1 if failed else 0)
