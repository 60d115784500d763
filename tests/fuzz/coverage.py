"""How much of its own files each fuzz target reaches with the committed inputs: gcov over the `coverage`
preset. A target names them at its top, `Covers: FILE... FILE:FUNCTION,FUNCTION... FILE:-FUNCTION,...`: all of a
file, some functions of it, all but some. Fails below the goal.

    tests/fuzz/coverage.py [TARGET...] [--missed]"""
import json
import pathlib
import re
import subprocess
import sys

GOAL = 90  # per cent of the lines
ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / "build/coverage"


def covers(source):
    """{file: functions of it, those with a - are not meant}"""
    found = re.search(r"^ \* Covers:(.*?)\*/", source.read_text(), re.M | re.S)
    names = found[1].replace("\n *", " ").split() if found else []
    return {name.split(":")[0]: name.split(":")[1].split(",") if ":" in name else []
            for name in names}


def replay(name):
    for data in BUILD.rglob("*.gcda"):
        data.unlink()
    inputs = ROOT / "tests/fuzz/corpus" / name
    subprocess.run([BUILD / f"tests/fuzz_{name}", inputs], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


def is_meant(function, functions):
    wanted = [name for name in functions if not name.startswith("-")]
    return "-" + function not in functions and (not wanted or function in wanted)


def lines_of(file, functions, name):
    """{line: times it ran}, of what belongs to the target"""
    ran = {}
    # A file may be compiled into more than one thing; only what ran has data.
    for data in BUILD.rglob(f"{file}.gcda"):
        if "fuzz_" in str(data) and f"fuzz_{name}.dir" not in str(data):
            continue
        out = subprocess.run(["gcov", "--json-format", "--stdout", data], check=True, cwd=BUILD,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
        for report in out.splitlines():
            for one in json.loads(report)["files"]:
                if not one["file"].endswith(file):
                    continue
                for line in one["lines"]:
                    if is_meant(line.get("function_name", ""), functions):
                        number = line["line_number"]
                        ran[number] = ran.get(number, 0) + line["count"]
    return ran


def main():
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    below = False
    for source in sorted((ROOT / "tests/fuzz").glob("fuzz_*.c")):
        name = source.stem[len("fuzz_"):]
        if words and name not in words:
            continue
        replay(name)
        for file, functions in covers(source).items():
            ran = lines_of(file, functions, name)
            reached = sum(1 for count in ran.values() if count > 0)
            percent = 100 * reached / len(ran) if ran else 0
            below |= percent < GOAL
            print(f"{name:10} {file:26} {reached:4} of {len(ran):4} lines  {percent:5.1f} %",
                  flush=True)
            if "--missed" in sys.argv:
                print("    not reached:", *(number for number in sorted(ran) if not ran[number]))
    return below


sys.exit(main())
