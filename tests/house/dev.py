"""`./dev test` and `.ci/run`: whatever goes wrong, the last line counts it. Run on a copy, with programs
that fail on demand in the place of the package manager, CMake and CTest."""
import os
import pathlib
import shutil
import subprocess
import tempfile

from cases import ROOT, case, check, finish, start

STUBS = {
    "apt-get": "exit ${APT:-0}",
    "dpkg-query": "[[ ${DPKG:-installed} == none || $4 == ${LACKS:-} ]] || printf 'install ok installed'",
    # cmake --preset X configures, cmake --build --preset X builds.
    "cmake": "if [[ $1 == --build ]]; then exit ${BUILD:-0}; else exit ${CONFIGURE:-0}; fi",
    "ctest": "printf '%b' \"${RESULTS-start a\\nend a 2 0 0\\n}\" >>\"$BEAM_TEST_RESULTS/results\"\n"
             "echo \"CI is ${CI:-not set}\"\nexit ${CTEST:-0}",
    "python3": "exit ${LINT:-0}",
    "sudo": "exec \"$@\"",
}
# In the place of cmake/wolfssl.sh: where nothing has been built yet, and what building comes to.
WOLFSSL = "if [[ $1 == prefix ]]; then echo nowhere; else exit ${WOLFSSL:-0}; fi"

start()
folder = tempfile.TemporaryDirectory()
home = pathlib.Path(folder.name)
(home / "bin").mkdir()
(home / ".ci").mkdir()
(home / "cmake").mkdir()
(home / "cmake/wolfssl.sh").write_text(f"#!/usr/bin/env bash\n{WOLFSSL}\n")
(home / "tests/peers").mkdir(parents=True)
(home / "tests/peers/install.sh").write_text("echo \"peers: $*\"\nexit ${PEERS:-0}\n")
for name, text in STUBS.items():
    (home / "bin" / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
    (home / "bin" / name).chmod(0o755)
shutil.copy(ROOT / "dev", home / "dev")
shutil.copy(ROOT / ".ci/run", home / ".ci/run")


def run(*command, **environment):
    """(exit status, lines of the output)"""
    kept = {name: value for name, value in os.environ.items()
            if name not in ("CI", "BEAM_TEST_RESULTS")}
    done = subprocess.run(["bash", *command], cwd=home, stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
                          env={**kept, "PATH": f"{home}/bin:{os.environ['PATH']}", **environment})
    return done.returncode, done.stdout.splitlines()


def ends(status, last, *command, **environment):
    got, lines = run(*command, **environment)
    check(lines and lines[-1] == last and (got == 0) == (status == 0),
          f"ended with {got}, wanted {status} and {last!r}:\n" + "\n".join(lines))
    return lines


with case("dev: a good run passes, and counts every preset"):
    for command in (("dev", "test"), (".ci/run",)):
        ends(0, "6 passed, 0 failed, 0 skipped", *command)
    ends(0, "2 passed, 0 failed, 0 skipped", "dev", "test", "asan")

with case("dev: what fails is counted, and the run fails"):
    wrong = {
        "a case": ({"RESULTS": "start a\nend a 1 1 0\n", "CTEST": "8"}, "3 passed, 3 failed"),
        "a case, and ctest does not mind": ({"RESULTS": "start a\nend a 1 1 0\n"},
                                            "3 passed, 3 failed"),
        "a program that crashed or hung": ({"RESULTS": "start b\nstart a\nend a 2 0 0\n",
                                            "CTEST": "8"}, "6 passed, 3 failed"),
        "one that never got to its first case": ({"CTEST": "8"}, "6 passed, 3 failed"),
        "every one before its first case": ({"RESULTS": "", "CTEST": "8"}, "0 passed, 3 failed"),
        "no tests at all": ({"RESULTS": ""}, "0 passed, 0 failed"),
    }
    for what, (environment, last) in wrong.items():
        ends(1, f"{last}, 0 skipped", "dev", "test", **environment)
    ends(1, "3 passed, 3 failed, 0 skipped", ".ci/run", RESULTS="start a\nend a 1 1 0\n", CTEST="8")
    for environment in ({"CONFIGURE": "1"}, {"BUILD": "1"}):
        ends(1, "0 passed, 3 failed, 0 skipped", "dev", "test", **environment)
        ends(1, "0 passed, 1 failed, 0 skipped", ".ci/run", **environment)

with case("dev: a run that is over before anything was counted says so in its last line"):
    for command in (("dev", "test"), (".ci/run",)):
        ends(1, "0 passed, 1 failed, 0 skipped", *command, DPKG="none", APT="1")
    shutil.rmtree(home / "build")
    (home / "build").write_text("no folder")
    for command in (("dev", "test"), (".ci/run",)):
        ends(1, "0 passed, 1 failed, 0 skipped", *command)
    (home / "build").unlink()

with case("dev: wolfSSL that cannot be built is said, and the system's is used"):
    lines = ends(0, "2 passed, 0 failed, 0 skipped", "dev", "test", "asan")
    check(any("building wolfSSL" in line and "ok" in line for line in lines), "\n".join(lines))
    lines = ends(0, "2 passed, 0 failed, 0 skipped", "dev", "test", "asan", WOLFSSL="4")
    check(any("the system's wolfSSL" in line and "CVE-2026-3547" in line for line in lines),
          "\n".join(lines))

with case("dev: a peer that is not here is installed; that it cannot be is said, and the rest goes on"):
    lines = ends(0, "2 passed, 0 failed, 0 skipped", "dev", "test", "asan", LACKS="haproxy")
    check(any("installing haproxy, of which nothing is started ... ok" in line for line in lines),
          "\n".join(lines))
    said = (home / "build/logs/peers.log").read_text()
    check(said == "peers: haproxy\n", said)
    lines = ends(0, "2 passed, 0 failed, 0 skipped", "dev", "test", "asan", LACKS="haproxy", PEERS="100")
    check(any("going on without" in line for line in lines), "\n".join(lines))

with case("dev: a skip is shown with its reason"):
    lines = ends(0, "3 passed, 0 failed, 3 skipped", "dev", "test",
                 RESULTS="start a\nskip a some_case: no such kernel\nend a 1 0 1\n")
    check("skip a some_case: no such kernel" in lines, "\n".join(lines))

with case("dev: a sweep adds up the programs of the flow tests, and names what it did"):
    (home / "tests/flow").mkdir(parents=True)
    (home / "build/dev/tests").mkdir(parents=True)
    for name, failed in (("test_a", "${FAILED:-0}"), ("test_b", "0")):
        (home / f"tests/flow/{name}.c").write_text("FLOW_TEST(a_case)\n")
        program = home / f"build/dev/tests/{name}"
        program.write_text(
            f"#!/usr/bin/env bash\n[[ $* == '--sweep all --every 3' ]] || exit 2\n"
            f"echo 'sweep:{name}: 50 runs, 49 faults, 30 answered, 20 not started, 0 given up, '"
            f"'40 compared, '{failed}' failed'\n"
            f"printf 'start {name}\\nend {name} 3 %d 0\\n' {failed} >>\"$BEAM_TEST_RESULTS/results\"\n"
            f"exit {failed}\n")
        program.chmod(0o755)
    (home / "tests/flow/test_c.c").write_text("TEST(no_case_of_the_fixture)\n")
    lines = ends(0, "6 passed, 0 failed, 0 skipped", "dev", "sweep", "--every", "3")
    check("all: 100 runs, 98 faults, 60 answered, 40 not started, 0 given up, 80 compared, 0 failed"
          in lines, "\n".join(lines))
    ends(1, "6 passed, 1 failed, 0 skipped", "dev", "sweep", "--every", "3", FAILED="1")
    ends(1, "0 passed, 1 failed, 0 skipped", "dev", "sweep")

with case("ci: lint fails it, and tests know that they may not do without io_uring"):
    ends(1, "0 passed, 1 failed, 0 skipped", ".ci/run", LINT="1")
    for environment in ({}, {"CI": "1"}):
        run(".ci/run", **environment)
        said = (home / "build/logs/dev-test.log").read_text()
        check("CI is true" in said, said)

with case("dev: a failing step shows the end of its log and names it"):
    lines = run("dev", "build", CONFIGURE="1")[1]
    check(lines[-1] == "the whole output is in build/logs/release-configure.log", "\n".join(lines))
folder.cleanup()
finish()
