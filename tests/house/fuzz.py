"""`./dev fuzz` behind the build: tests/fuzz/run.sh, with programs in the place of fuzz targets that print what
libFuzzer prints, and find something on demand. What is found fails the run and is named with the command
that runs it again."""
import os
import pathlib
import shutil
import subprocess
import tempfile

from cases import ROOT, case, check, finish, start

PROGRAM = r"""#!/usr/bin/env bash
echo "$0 $*" >>calls
for word; do
    case $word in
    -artifact_prefix=*) prefix=${word#*=} ;;
    -merge=1) [[ -z ${MERGE_FAILS:-} ]] || exit 1; touch "${@: -2:1}"/new{1..3}; exit ;;
    esac
done
echo '#12	NEW    cov: 34 ft: 56 corp: 7/8b'
if [[ $0 == *"_${FINDS:-nothing}" ]]; then
    echo 'fuzz_x.c:9: not so: a == b'
    echo x >"${prefix}crash-1"
    echo "artifact_prefix='$prefix'; Test unit written to ${prefix}crash-1"
    exit 77
fi
echo 'stat::number_of_executed_units: 1234'
echo 'stat::average_exec_per_sec:     617'
exit ${STATUS:-0}
"""

start()
folder = tempfile.TemporaryDirectory()
home = pathlib.Path(folder.name)
(home / "tests/fuzz").mkdir(parents=True)
(home / "build/fuzz/tests").mkdir(parents=True)
shutil.copy(ROOT / "tests/fuzz/run.sh", home / "tests/fuzz/run.sh")
for target in ("one", "two"):
    (home / f"tests/fuzz/fuzz_{target}.c").touch()
    (home / f"build/fuzz/tests/fuzz_{target}").write_text(PROGRAM)
    (home / f"build/fuzz/tests/fuzz_{target}").chmod(0o755)


def run(*words, **environment):
    """(exit status, the output, the command lines of the targets)"""
    (home / "calls").write_text("")
    done = subprocess.run(["bash", "tests/fuzz/run.sh", *words], cwd=home, text=True, timeout=60,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**os.environ, **environment})
    return done.returncode, done.stdout, (home / "calls").read_text().splitlines()


with case("fuzz: all targets for a minute each, and a row for each"):
    status, said, calls = run()
    check(status == 0, f"{status}: {said}")
    check(len(calls) == 2 and all("-max_total_time=60" in call for call in calls), "\n".join(calls))
    for target in ("one", "two"):
        check(f"{target} 1234 617 34 56 0".split() in [line.split() for line in said.splitlines()], said)

with case("fuzz: so many seconds, and only the targets that are named"):
    status, said, calls = run("7", "two")
    check(status == 0 and len(calls) == 1, f"{status}: {said}")
    check("fuzz_two" in calls[0] and "-max_total_time=7" in calls[0], calls[0])
    check("build/fuzz-corpus/two tests/fuzz/corpus/two" in calls[0], calls[0])

with case("fuzz: a find fails the run, which goes on and tells how to run it again"):
    status, said, calls = run("1", FINDS="one")
    check(status == 1 and len(calls) == 2, f"{status}: {said}")
    check("one: fuzz_x.c:9: not so: a == b" in said, said)
    check("build/fuzz/tests/fuzz_one build/fuzz-found/one-crash-1" in said, said)
    check((home / "build/fuzz-found/one-crash-1").is_file(), "the find is gone")

with case("fuzz: a target that ends badly without a find fails the run too"):
    status, said, _ = run("1", "one", STATUS="3")
    check(status == 1 and "one: ended with 3" in said and "build/logs/fuzz-one.log" in said, said)

with case("fuzz: an interrupted run has found nothing and is counted"):
    status, said, _ = run("1", "one", STATUS="72")
    check(status == 0 and "one 1234 617 34 56 0".split() in [line.split() for line in said.splitlines()],
          said)

with case("fuzz: a target that is not there is a complaint"):
    for words in (("three",), ("5", "three"), ("merge", "three")):
        status, said, calls = run(*words)
        check(status == 2 and not calls and "three" in said and "one two" in said, said)

with case("fuzz: merge adds to the committed inputs and says how many there are"):
    status, said, calls = run("merge", "one")
    check(status == 0 and "3 files" in said, f"{status}: {said}")
    check(len(calls) == 1 and "-use_counters=0" in calls[0] and "tests/fuzz/corpus/one " in calls[0], calls[0])
    status, said, _ = run("merge", MERGE_FAILS="1")
    check(status == 1, said)

with case("fuzz: merge does not let the committed inputs grow beyond what is replayed everywhere"):
    (home / "tests/fuzz/corpus/one/large").write_bytes(bytes(1 << 20))
    (home / "tests/fuzz/corpus/one/one_more").write_bytes(b"x")
    status, said, _ = run("merge", "one")
    check(status == 1, said)
    (home / "tests/fuzz/corpus/one/large").unlink()
    for number in range(400):
        (home / f"tests/fuzz/corpus/one/{number}").touch()
    status, said, _ = run("merge", "one")
    check(status == 1 and "more than 400" in said, said)
folder.cleanup()
finish()
