"""Runs a program or script as a test: as_case.py NAME COMMAND [ARGUMENT...]

One case that passes when the command exits 0 and is skipped when it exits 77 (the last line of its
output is the reason). A command that closes with `N passed, N failed, N skipped` is counted by that.
"""
import re
import subprocess
import sys

import cases

name, command = sys.argv[1], sys.argv[2:]
cases.PROGRAM = name
if command[0].endswith(".py"):
    command = [sys.executable] + command
elif command[0].endswith(".sh"):
    command = ["bash"] + command

cases.start()
lines = []
with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                      stderr=subprocess.STDOUT, text=True, errors="replace") as process:
    for line in process.stdout:
        print(line, end="", flush=True)
        if line.strip():
            lines.append(line.strip())
status = process.returncode
last = lines[-1] if lines else ""

closing = re.fullmatch(r"(\d+) passed, (\d+) failed, (\d+) skipped", last)
if closing:
    for key, number in zip(("passed", "failed", "skipped"), closing.groups()):
        cases.counts[key] = int(number)
    if status != 0 and cases.counts["failed"] == 0:
        cases.counts["failed"] = 1
    for line in lines:
        if line.startswith("skip "):
            cases.record(f"skip {name} {line[5:]}")
else:
    with cases.case(name):
        if status == 77:
            cases.skip(last or "no reason given")
        cases.check(status == 0, f"{' '.join(command)} ended with {status}")
cases.finish()
