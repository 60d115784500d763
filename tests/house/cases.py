"""The harness for test scripts: what tests/support/test.h is for C.

    with case("every header stands alone"):
        check(output == "", output)
    finish()

A case fails when a check fails or anything is raised, and passes otherwise. finish() prints the
closing line, leaves the counts in BEAM_TEST_RESULTS like the C runner does, and exits.
"""
import contextlib
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(sys.argv[0]).stem

counts = {"passed": 0, "failed": 0, "skipped": 0}


class Failed(Exception):
    pass


class Skipped(Exception):
    pass


def record(line):
    folder = os.environ.get("BEAM_TEST_RESULTS")
    if folder:
        with open(os.path.join(folder, "results"), "a") as results:
            results.write(line + "\n")


def check(ok, text):
    if not ok:
        raise Failed(text)


def skip(reason):
    if os.environ.get("CI") == "true" and "io_uring" in str(reason):
        raise Failed(f"skipped for want of io_uring, which CI must have: {reason}")
    raise Skipped(reason)


@contextlib.contextmanager
def case(name):
    try:
        yield
    except Skipped as reason:
        counts["skipped"] += 1
        print(f"skip {name}: {reason}")
        record(f"skip {PROGRAM} {name}: {reason}")
    except Failed as text:
        counts["failed"] += 1
        print(f"FAIL {name}\n    " + str(text).replace("\n", "\n    "))
    except Exception as error:
        counts["failed"] += 1
        print(f"FAIL {name}\n    {type(error).__name__}: {error}")
    else:
        counts["passed"] += 1
        print(f"ok   {name}")
    sys.stdout.flush()


def run(*command, **options):
    """Output of a command that has to succeed."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace", **options)
    words = " ".join(str(word) for word in command)
    check(done.returncode == 0, f"{words}\nended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def static_library():
    """What a program is linked with to have the library in it, which depends on what was built in."""
    build = pathlib.Path(os.environ["BEAM_BUILD_DIR"])
    needs = run("pkg-config", "--static", "--libs", build / "beam.pc").split()
    return [build / "libbeam.a", *(word for word in needs if word != "-lbeam" and not word.startswith("-L"))]


def network_library():
    """The same with networks, as the flow fixture needs it."""
    build = pathlib.Path(os.environ["BEAM_BUILD_DIR"])
    tls = run("bash", pathlib.Path(os.environ["BEAM_SOURCE_DIR"], "cmake/wolfssl.sh"), "prefix").strip()
    built = {"-lbeam-net": build / "libbeam-net.a", "-l:libbeam.a": build / "libbeam.a",
             "-lbeam-wolfssl": pathlib.Path(tls, "lib/libwolfssl.a")}
    needs = run("pkg-config", "--static", "--libs", build / "beam-net.pc").split()
    return [built.get(word, word) for word in needs if not word.startswith("-L")]


def start():
    record(f"start {PROGRAM}")


def finish():
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**counts))
    record("end {} {passed} {failed} {skipped}".format(PROGRAM, **counts))
    sys.exit(1 if counts["failed"] or not sum(counts.values()) else 0)
