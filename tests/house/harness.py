"""The harness itself: what must fail fails, what crashes is named and counted."""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from cases import ROOT, case, check, finish, run, start, network_library, static_library

CC = os.environ.get("CC", "cc")

start()
folder = tempfile.TemporaryDirectory()
program = pathlib.Path(folder.name, "sample")
results = pathlib.Path(folder.name, "results")


def sample(*arguments, **environment):
    """(exit status, output, lines left in the results file)"""
    results.unlink(missing_ok=True)
    done = subprocess.run([program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, cwd="/", timeout=60, stdin=subprocess.DEVNULL,
                          env={**os.environ, "CI": "", "BEAM_TEST_RESULTS": folder.name, **environment})
    return done.returncode, done.stdout, results.read_text().splitlines()


with case("harness: a sample of cases builds"):
    support = [ROOT / f"tests/support/{name}.c" for name in
               ("main", "check", "snapshot", "nobody", "tmpdir", "random", "seed", "results", "sweep",
                "fault", "memory")]
    run(CC, "-std=gnu11", "-D_GNU_SOURCE", "-g", "-I", ROOT, "-I", ROOT / "include",
        ROOT / "tests/house/harness_sample.c", *support, *static_library(), "-o", program)
    names = run(program, "--list").split()

for name in names:
    kind = name.split("_")[0]
    if kind == "root":
        kind = name.split("_")[1] if os.geteuid() == 0 else "skip"
    with case(f"harness: {name}"):
        status, output, lines = sample(name, BEAM_TEST_CASE_TIMEOUT="1")
        if kind == "crash":
            check(status < 0, f"ended with {status}")
            check(f"in case {name} of sample" in output, f"does not name the case:\n{output}")
            check(lines == ["start sample"], f"left {lines}")
            continue
        word = {"pass": "ok  ", "fail": "FAIL", "skip": "skip"}[kind]
        counts = {"pass": (1, 0, 0), "fail": (0, 1, 0), "skip": (0, 0, 1)}[kind]
        check(any(line.startswith(f"{word} {name}") for line in output.splitlines()), output)
        check(output.endswith("{} passed, {} failed, {} skipped\n".format(*counts)), output)
        check(lines[-1] == "end sample {} {} {}".format(*counts), f"left {lines}")
        check((status == 0) == (kind != "fail"), f"ended with {status}")

with case("harness: a skip for want of io_uring fails in CI, another does not"):
    check(sample("skip_io_uring", CI="true")[0] == 1, "passed")
    check(sample("skip_reason", CI="true")[0] == 0, "failed")

with case("harness: the same for a script, whichever way it skips"):
    script = pathlib.Path(folder.name, "test_script.py")
    for text in (f"import sys\nsys.path.insert(0, {str(ROOT / 'tests/house')!r})\nimport cases\n"
                 "with cases.case('a'):\n    cases.skip('no io_uring here')\ncases.finish()\n",
                 "print('no io_uring here')\nraise SystemExit(77)\n"):
        script.write_text(text)
        for ci, status, last in (("", 0, "end script 0 0 1"), ("true", 1, "end script 0 1 0")):
            results.unlink(missing_ok=True)
            done = subprocess.run([sys.executable, ROOT / "tests/house/as_case.py", "script", script],
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                  env={**os.environ, "CI": ci, "BEAM_TEST_RESULTS": folder.name})
            lines = results.read_text().splitlines()
            check(done.returncode == status and lines[-1] == last,
                  f"ended with {done.returncode}, left {lines}\n{done.stdout}")

sweeper = pathlib.Path(folder.name, "sweeper")
with case("harness: a sample of cases to sweep over builds"):
    run(CC, "-std=gnu11", "-D_GNU_SOURCE", "-g", "-I", ROOT, "-I", ROOT / "include",
        ROOT / "tests/house/sweep_sample.c", ROOT / "tests/support/flow.c", *support,
        *network_library(), "-o", sweeper)
    swept = sorted({name.split("/")[0] for name in run(sweeper, "--list").split()})


def sweep(name, kind):
    """(exit status, output)"""
    done = subprocess.run([sweeper, "--sweep", kind, name], stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.STDOUT, cwd="/", timeout=60, stdin=subprocess.DEVNULL,
                          env={**os.environ, "BEAM_TEST_RESULTS": folder.name,
                               "BEAM_TEST_CASE_TIMEOUT": "3"})
    return done.returncode, done.stdout


for name in swept:
    with case(f"harness: a sweep, {name}"):
        status, output = sweep(f"{name}/unix", "allocation")
        totals = re.search(r"^sweep:sweeper: (\d+) runs, (\d+) faults, (\d+) answered, (\d+) not started, "
                           r"0 given up, (\d+) compared, (\d+) failed$", output, re.M)
        check(totals, output)
        runs, faults, answered, not_started, compared, failed = map(int, totals.groups())
        fails = name.startswith("fail")
        # On a busy machine a run may need an allocation less than the one that was counted.
        check(runs - 2 <= faults <= runs and faults > 20 and compared > 10 and not_started > 10, output)
        check(answered + not_started >= faults or fails, output)
        check((status != 0) == fails and (failed > 0) == fails, f"ended with {status}:\n{output}")
        if fails:
            check(re.search(rf"^FAIL {name}/unix, fails: allocation \d+: ", output, re.M), output)
        if "nobody_answers" not in name:
            check(sweep(f"{name}/process", "completion")[0] == 0, "a failed completion is its fault")

with case("harness: a filter that names no case fails"):
    check(sample("no_such_case")[0] == 1, "passed")

with case("harness: temporary directories are gone"):
    left = [f for f in pathlib.Path(os.environ.get("TMPDIR", "/tmp")).glob("beam-test-*")
            if (f / "left-over").exists()]
    check(not left, f"left {left}")
folder.cleanup()
finish()
