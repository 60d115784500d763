"""The sleep protocol holds in its model, and the model can fail: see sleep.pml."""
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
VARIANTS = [
    (0, True, "the protocol loses no wake-up"),
    (1, False, "a plain store by the consumer loses one"),
    (2, False, "a plain look by the producer loses one"),
    (3, False, "not looking again loses one"),
    (4, False, "ringing at the end of the turn loses one"),
]

if not shutil.which("spin"):
    print("spin is not installed (Debian: spin)")
    sys.exit(77)


def errors_of(variant, where):
    """How many errors the checker finds, over all states."""
    run = lambda *command: subprocess.run(command, cwd=where, check=True, capture_output=True, text=True).stdout
    run("spin", "-a", f"-DVARIANT={variant}", os.path.join(HERE, "sleep.pml"))
    run(os.environ.get("CC", "cc"), "-O1", "-w", "-DSAFETY", "-o", "pan", "pan.c")
    report = run("./pan", "-m100000")
    if "max search depth too small" in report:
        raise SystemExit(f"the search was cut short:\n{report}")
    return int(re.search(r"errors: (\d+)", report).group(1))


failed = 0
for number, holds, text in VARIANTS:
    with tempfile.TemporaryDirectory() as where:
        errors = errors_of(number, where)
    good = (errors == 0) == holds
    failed += not good
    print(f"{'ok  ' if good else 'FAIL'} {text} ({errors} errors)", flush=True)
print(f"{len(VARIANTS) - failed} passed, {failed} failed, 0 skipped")
sys.exit(1 if failed else 0)
