"""Running the program `beam` as a shell does, for the tests beside this file."""
import contextlib
import ctypes
import os
import select
import signal
import struct
import subprocess
import sys
import time

from cases import check

BEAM = os.path.realpath(sys.argv[1] if len(sys.argv) > 1 else os.environ["BEAM_PROGRAM"])
PATIENCE = 30  # seconds; only a hang is longer

(OK, OTHER, USAGE, NO_IO_URING, UNAVAILABLE, PERMISSION, LIMIT, DEADLINE, NOT_FOUND,
 ANSWERED) = range(10)


class Result:
    def __init__(self, command, done):
        self.command, self.code = command, done.returncode
        self.out, self.err = done.stdout, done.stderr
        self.text = done.stdout.decode(errors="replace")
        self.errors = done.stderr.decode(errors="replace")

    def __str__(self):
        return (f"$ {' '.join(map(str, self.command))}\nexit code {self.code}\n"
                f"stdout: {self.out[:500]!r}\nstderr: {self.err[:1000]!r}")


def beam(*words, code=OK, stdin=b"", **options):
    command = [BEAM, *map(str, words)]
    if "stdin_file" in options:
        options["stdin"] = options.pop("stdin_file")
    else:
        options["input"] = stdin
    result = Result(command, subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                            timeout=PATIENCE, **options))
    check(code is None or result.code == code, f"expected exit code {code}\n{result}")
    return result


def equal(got, wanted, what=""):
    check(got == wanted, f"{what} got {got!r}, wanted {wanted!r}")


def contains(text, part):
    check(part in text, f"{part!r} is not in:\n{text}")


def read_line(pipe, patience=PATIENCE):
    """A line of an unbuffered pipe, or what has come when nothing more does."""
    line, until = b"", time.monotonic() + patience
    while not line.endswith(b"\n"):
        left = until - time.monotonic()
        if left <= 0 or not select.select([pipe], [], [], left)[0]:
            break
        byte = os.read(pipe.fileno(), 1)
        if not byte:
            break
        line += byte
    return line.decode(errors="replace")


@contextlib.contextmanager
def serving(*words, code=OK, stop=signal.SIGTERM):
    """A `beam serve` that says it listens; afterwards it has to end with `code`."""
    process = subprocess.Popen([BEAM, "serve", *map(str, words)], stdin=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, bufsize=0)
    try:
        line = read_line(process.stderr)
        check(line.startswith("listening on "), f"beam serve {words} said {line!r}")
        yield process
        if process.poll() is None:
            process.send_signal(stop)
        said = process.stderr.read().decode(errors="replace")
        process.wait(PATIENCE)
        check(process.returncode == code,
              f"beam serve {words} ended with {process.returncode}, not {code}; it said {said!r}")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@contextlib.contextmanager
def running(*words):
    """A `beam` that runs meanwhile, with pipes for what it says."""
    process = subprocess.Popen([BEAM, *map(str, words)], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def without_call(number, error):
    """In a child: a system call fails with that errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = b"".join(struct.pack("HBBI", *line) for line in (
        (0x20, 0, 0, 0),                    # load the number of the system call
        (0x15, 0, 1, number),               # that one?
        (0x06, 0, 0, 0x00050000 | error),
        (0x06, 0, 0, 0x7fff0000)))          # allow
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", 4, ctypes.addressof(buffer))
    PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
            PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_char_p(program), 0, 0):
        os._exit(99)
