"""What the program `beam` promises to a shell: output, exit codes, and nothing left behind.

    test_program.py [path/to/beam]
"""
import asyncio
import contextlib
import errno
import fcntl
import json
import os
import pathlib
import resource
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time

# The counts are those of the closing line; whoever runs this script records them.
os.environ.pop("BEAM_TEST_RESULTS", None)
sys.dont_write_bytecode = True
TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "house"), str(TESTS / "ports"), str(TESTS / "cli")]
import kv as documents  # noqa: E402
from cases import case, check, finish, skip  # noqa: E402
from shell import (BEAM, DEADLINE, LIMIT, NO_IO_URING, NOT_FOUND, OK, OTHER, PATIENCE,  # noqa: E402
                   PERMISSION, UNAVAILABLE, USAGE, ANSWERED, beam, contains, equal,
                   read_line, running, serving, without_call)
from strict import session as port  # noqa: E402

folder = pathlib.Path(tempfile.mkdtemp(prefix="beam-cli-"))
files = folder / "files"
url = f"unix:{folder}/b.sock"


def call(*words, **options):
    return beam("call", url, *words, **options)


def watching(*words, at=None):
    return running("watch", at or url, *words)


def wait_until_refused(path):
    """The kernel takes the ring of a process that was killed apart some milliseconds after its end,
    and its listening socket lives until then."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                return
    check(False, f"somebody still listens at {path}")


def leftovers():
    return sorted(name.name for name in folder.iterdir() if ".part" in name.name)


def without_io_uring():
    """In a child: io_uring_setup(2) fails with EPERM, as in many a container."""
    without_call(425, errno.EPERM)  # the same number on every architecture


def without_fsync():
    """In a child: the disk takes nothing."""
    without_call({"x86_64": 74, "aarch64": 82}[os.uname().machine], errno.EIO)


def without_fchown():
    """In a child: no file can be given away, be it to who has it."""
    without_call({"x86_64": 93, "aarch64": 55}[os.uname().machine], errno.EPERM)


def test_words():
    with case("no verb, or an unknown one, is a usage error that points at --help"):
        contains(beam(code=USAGE).errors, "usage: beam VERB")
        contains(beam("dance", code=USAGE).errors, "--help")

    for verb in ("serve", "call", "watch"):
        with case(f"beam {verb} --help has options and examples, on stdout"):
            text = beam(verb, "--help").text
            contains(text, f"usage: beam {verb}")
            contains(text, "examples:\n")

    with case("beam --help and README.md explain every exit code"):
        text, readme = beam("--help").text, (TESTS.parent / "README.md").read_text()
        for code in range(10):
            contains(text, f"\n    {code}   ")
            contains(readme, f"\n| {code} | ")

    with case("beam --version shows version, kernel, features and limits"):
        text = beam("--version").text
        for part in ("beam 0.", os.uname().release, "liburing", "io_uring", "limits", "nofile"):
            contains(text, part)

    wrong = {
        ("call", url): "name a URL and a service",
        ("call", url, "echo", "--loud"): "no option --loud",
        ("call", url, "echo", "--timeout", "5"): "500ms",
        ("call", url, "echo", "--timeout", "-5s"): "500ms",
        ("call", url, "echo", "--timeout"): "needs a value",
        ("call", url, "echo", "--json=yes"): "takes no value",
        ("call", url, "echo", "text"): "key=text",
        ("call", url, "echo", "=text"): "key in front",
        ("call", url, "echo", "--codec", "yaml"): "json, msgpack, xml",
        ("call", url, "echo", "--codec", "4294967296"): "json, msgpack, xml",
        ("call", url, "echo", "--codec", ""): "json, msgpack, xml",
        ("call", url, "echo", "n:=ten"): "write n=ten",
        ("call", url, "echo", "n:=1x"): "write n=1x",
        ("call", url, "echo", "n:=99999999999999999999"): "n=9999",
        ("call", url, "echo", "n:=inf"): "write n=inf",
        ("call", url, "echo", "n:=1e309"): "write n=1e309",
        ("call", url, "echo", "a=1", "a=2"): "twice",
        ("call", url, "echo", *[f"k{i}=" for i in range(65)]): "at most 64",
        ("call", url, "echo", "k=" + "x" * 17000): "16384",
        ("serve", "echo"): "--listen",
        ("serve", "--listen", url): "at least one service",
        ("serve", "dance", "--listen", url): "no such kind",
        ("serve", "file", "--listen", url): "argument is missing",
        ("serve", "echo:x", "--listen", url): "takes no argument",
        ("serve", "echo", "echo", "--listen", url): "NAME=KIND",
        ("serve", "echo", "--listen", url, "--reactors", "0"): "1 to 64",
        ("serve", "echo", "--listen", url, "--window", "1K"): "16384 to",
        ("serve", "echo", "--listen", url, "--socket-mode", "rw"): "0660",
        ("serve", "echo", "--listen", url, "--socket-mode", "0"): "0660",
        ("serve", "echo", "--listen", url, "--socket-mode", "-1"): "0660",
        ("serve", "kv", "--listen", url, "--sync", "often"): "each, batch or none",
        ("serve", "kv:x", "--listen", url): "takes no argument",
        ("watch", url): "name a URL and a service",
        ("call", "unix:fd:x", "echo"): "url: not understood",
        ("--version", "now"): "now",
        ("version", "--loud"): "no option --loud",
    }
    with case("a wrong command line is exit code 2 and says how to write it"):
        for words, part in wrong.items():
            contains(beam(*words, code=USAGE).errors, part)
        check(not (folder / "b.sock").exists(), "a socket was made")

    with case("a URL of another kind is a usage error that lists the kinds there are"):
        for other in ("ftp://example.org", "https:", "https://", "tcp:127.0.0.1:1", "/tmp/x.sock", "unix:", ""):
            for words in (("call", other, "echo"), ("watch", other, "clock"),
                          ("serve", "echo", "--listen", other)):
                text = beam(*words, code=USAGE).errors
                contains(text, "unix:/path")
                contains(text, "unix:@name")

    with case("no io_uring is exit code 3 and one message"):
        result = subprocess.run([BEAM, "call", url, "echo"], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, preexec_fn=without_io_uring)
        text = result.stderr.decode()
        check(result.returncode == NO_IO_URING, f"ended with {result.returncode}: {text}")
        contains(text, "io_uring")
        equal(text.count("\n"), 1, text)


def closed(*fds):
    def close():
        for fd in fds:
            os.close(fd)
    return close


def test_output():
    with case("a standard output that is full or closed is exit code 1, and is said"):
        for words in (("--help",), ("--version",), ("call", "--help"), ("bench", "--help"),
                      ("call", url, "echo", "a=b"), ("call", url, "echo", "a=b", "--json"),
                      ("watch", url, "echo", "a=b", "--count", "1"),
                      ("call", url, "file", "path=a.txt", "--save-fd", "-")):
            for options in ({"stdout": "/dev/full"}, {"preexec_fn": closed(1)}):
                with open(options.pop("stdout", os.devnull), "w") as out:
                    done = subprocess.run([BEAM, *words], stdin=subprocess.DEVNULL, stdout=out,
                                          stderr=subprocess.PIPE, timeout=PATIENCE, **options)
                check(done.returncode == OTHER and done.stderr,
                      f"{words}: exit code {done.returncode}, stderr {done.stderr!r}")

    with case("closed standard descriptors are no place for sockets"):
        for fds in ((0,), (2,), (0, 2), (0, 1, 2)):
            process = subprocess.Popen([BEAM, "serve", "echo", "--listen",
                                        f"unix:{folder}/closed.sock"], preexec_fn=closed(*fds),
                                       stderr=subprocess.DEVNULL)
            try:
                until = time.monotonic() + PATIENCE
                while not (folder / "closed.sock").exists() and time.monotonic() < until:
                    check(process.poll() is None, f"{fds}: ended with {process.returncode}")
                for fd in fds:
                    where = os.readlink(f"/proc/{process.pid}/fd/{fd}")
                    equal(where, "/dev/null", f"{fds}: descriptor {fd} is")
                equal(beam("call", f"unix:{folder}/closed.sock", "echo", "a=b",
                           preexec_fn=closed(0), stdin_file=subprocess.DEVNULL).text, "a=b\n")
                process.terminate()
                equal(process.wait(PATIENCE), OK)
            finally:
                process.kill()
                process.wait()


def test_echo():
    with case("echo answers key=value pairs with their types"):
        result = call("echo", "text=hi", "n:=7", "big:=18446744073709551615", "f:=1.5", "yes:=true",
                      "no:=false", "nothing:=null", "empty=", "eq=a=b", "neg:=-3")
        equal(sorted(result.text.splitlines()), sorted([
            "text=hi", "n:=7", "big:=18446744073709551615", "f:=1.5", "yes:=true", "no:=false",
            "nothing:=null", "empty=", "eq=a=b", "neg:=-3"]))
        equal(result.errors, "")

    with case("every number that is printed can be written, down to the least"):
        floats = ["least:=5e-324", "most:=-1.7976931348623157e+308"]
        equal(sorted(call("echo", *floats).text.splitlines()), floats)

    with case("control characters of a peer do not reach the terminal"):
        equal(call("echo", "t=a\x1b[2Jb\nc").text, "t=a\\x1b[2Jb\\nc\n")
        equal(call("echo", "t=a\u009b2J\u00a0\x7f").text, "t=a\\u009b2J\u00a0\\x7f\n")

    with case("--json gives one object with types, body and number of fds"):
        answer = json.loads(call("echo", "n:=7", "t=x\n", "--body", "-", "--json",
                                 stdin=b"caf\xc3\xa9").text)
        equal(answer, {"metadata": {"n": 7, "t": "x\n"}, "body": "caf\u00e9"})
        equal(json.loads(call("echo", "--body", "-", "--json", stdin=b"\xff\x00").text),
              {"body": {"$bytes": "/wA="}})
        equal(json.loads(call("echo", "--json").text), {})

    with case("a body of any bytes comes back unchanged, and alone on stdout"):
        for body in (b"x", bytes(range(256)) * 4, os.urandom(100_000), os.urandom(5_000_000)):
            result = call("echo", "n:=1", "--body", "-", stdin=body)
            check(result.out == body, f"{len(result.out)} bytes for {len(body)}")
            equal(result.errors, "n:=1\n")

    with case("--body FILE"):
        equal(call("echo", "--body", files / "a.txt").out, b"content of a\n")

    with case("--codec says what a body is, by name or number"):
        for word, number in (("json", 1), ("msgpack", 2), ("xml", 3), ("protobuf", 4), ("1", 1),
                             ("65536", 65536), ("4294967295", 4294967295)):
            equal(json.loads(call("echo", "--codec", word, "--body", "-", "--json", stdin=b"x").text),
                  {"body": "x", "codec": number})
        equal(json.loads(call("echo", "--codec", "kv", "t=1", "--json").text), {"metadata": {"t": "1"}})

    with case("a file that cannot be read is no wrong command line: exit code 1, or 6 without memory"):
        for option in ("--body", "--send-fd"):
            contains(call("echo", option, "/nonexistent", code=OTHER).errors, "/nonexistent: No such")
        contains(call("echo", "--body", files, code=OTHER).errors, "directory")

    with case("a body over the peer's limit is refused as a limit, and the server lives on"):
        call("echo", "--body", "-", stdin=bytes(17 << 20), code=LIMIT)
        equal(call("echo", "t=still here").text, "t=still here\n")

    with case("echo sends descriptors back: a file, standard input, a pipe"):
        call("echo", "--send-fd", files / "a.txt", "--save-fd", folder / "copy")
        equal((folder / "copy").read_bytes(), b"content of a\n")
        content = os.urandom(300_000)
        equal(call("echo", "--send-fd", "-", "--save-fd", "-", stdin=content).out, content)
        result = json.loads(call("echo", "--json", *["--send-fd", files / "a.txt"] * 16).text)
        equal(result, {"fds": 16})

    with case("echo answers each message of a channel that stays open"):
        equal(beam("watch", url, "echo", "text=hi", "--count", "1").text, "text=hi\n")


def test_file():
    with case("file answers with size, mtime and the descriptor"):
        result = call("file", "path=a.txt", "--save-fd", folder / "copy")
        st = (files / "a.txt").stat()
        equal(result.text, f"mtime:={int(st.st_mtime)}\nsize:=13\n")
        equal((folder / "copy").read_bytes(), b"content of a\n")
        equal(stat.S_IMODE((folder / "copy").stat().st_mode), 0o666 & ~umask)
        equal(leftovers(), [])

    with case("file follows a link that stays inside"):
        equal(call("file", "path=sub/link", "--save-fd", "-").out, b"content of a\n")

    with case("file never opens anything outside its directory"):
        for path in ("../secret", "/etc/passwd", "sub/../../secret", "out", "out-dir/secret", ".."):
            result = call("file", f"path={path}", "--save-fd", folder / "stolen", code=PERMISSION)
            contains(result.errors, "permission denied")
        check(not (folder / "stolen").exists(), "something was saved")

    with case("file tells a missing file from what is no regular file"):
        for path in ("missing", "a.txt/x", "sub/missing"):
            call("file", f"path={path}", code=NOT_FOUND)
        for path in ("sub", ".", "fifo", "socket"):
            contains(call("file", f"path={path}", code=ANSWERED).errors, "not a regular file")
        call("file", code=ANSWERED)
        call("file", "path=", code=ANSWERED)
        call("file", "path:=7", code=ANSWERED)
        call("file", "path=" + "x" * 300, code=ANSWERED)

    with case("--save-fd replaces a file when it is complete, and touches nothing on failure"):
        target = folder / "target"
        target.write_text("old")
        call("file", "path=missing", "--save-fd", target, code=NOT_FOUND)
        equal(target.read_text(), "old")
        call("file", "path=a.txt", "--save-fd", target)
        equal(target.read_text(), "content of a\n")
        call("file", "path=a.txt", "--save-fd", folder / "no-such-dir/x", code=OTHER)
        call("echo", "--save-fd", target, code=OTHER)
        equal(target.read_text(), "content of a\n")
        equal(leftovers(), [])

    with case("--save-fd leaves a file that it replaces its mode, and makes a new one like any other"):
        for mode in (0o600, 0o640, 0o755, 0o666):
            target.write_text("old")
            target.chmod(mode)
            call("file", "path=a.txt", "--save-fd", target)
            equal(oct(stat.S_IMODE(target.stat().st_mode)), oct(mode))
            equal(target.read_text(), "content of a\n")
        equal(leftovers(), [])

    with case("--save-fd through a symbolic link replaces what it leads to, be it there or not"):
        (folder / "sub").mkdir()
        link, second, dangling = folder / "link", folder / "sub/second", folder / "dangling"
        second.symlink_to("../target")
        link.symlink_to(second)
        dangling.symlink_to("sub/new")
        target.write_text("old")
        target.chmod(0o640)
        call("file", "path=a.txt", "--save-fd", link)
        call("file", "path=a.txt", "--save-fd", "dangling", cwd=folder)
        check(link.is_symlink() and second.is_symlink() and dangling.is_symlink(), "a link is gone")
        check(not target.is_symlink(), "the target is a link")
        equal(oct(stat.S_IMODE(target.stat().st_mode)), oct(0o640))
        for name in (target, folder / "sub/new"):
            equal(name.read_text(), "content of a\n")
        (folder / "round").symlink_to("round")
        contains(call("file", "path=a.txt", "--save-fd", folder / "round", code=OTHER).errors,
                 "Too many levels")
        equal(sorted(name.name for name in (folder / "sub").iterdir()), ["new", "second"])
        equal(leftovers(), [])

    with case("--save-fd does not follow a link that somebody else put where anybody may"):
        if os.geteuid() != 0:
            skip("needs root, to be somebody else for a moment")
        shared, kept = folder / "shared", folder / "kept"
        shared.mkdir()
        shared.chmod(0o1777)
        kept.write_text("old")
        (shared / "theirs").symlink_to(kept)
        os.chown(shared / "theirs", 65534, 65534, follow_symlinks=False)
        contains(call("file", "path=a.txt", "--save-fd", shared / "theirs", code=PERMISSION).errors,
                 "Permission denied")
        equal(kept.read_text(), "old")
        (shared / "ours").symlink_to(kept)
        call("file", "path=a.txt", "--save-fd", shared / "ours")
        equal(kept.read_text(), "content of a\n")
        kept.unlink()
        equal([name.name for name in shared.iterdir() if ".part" in name.name], [])

    with case("--save-fd keeps no owner and mode of what somebody else put where anybody may"):
        if os.geteuid() != 0:
            skip("needs root, to be somebody else for a moment")
        wanted = {"theirs": (65534, 0o602, 0, 0o666 & ~umask), "ours": (0, 0o602, 0, 0o602),
                  "its owner's": (1234, 0o602, 1234, 0o602)}
        os.chown(shared, 1234, 1234)
        for name, (owner, mode, owner_then, mode_then) in wanted.items():
            (shared / name).unlink(missing_ok=True)
            (shared / name).write_text("planted")
            (shared / name).chmod(mode)
            os.chown(shared / name, owner, owner)
            call("file", "path=a.txt", "--save-fd", shared / name)
            st = (shared / name).stat()
            equal((st.st_uid, st.st_gid, oct(stat.S_IMODE(st.st_mode))),
                  (owner_then, owner_then, oct(mode_then)), name)
            equal((shared / name).read_text(), "content of a\n")
        shared.chmod(0o755)  # where nobody else may put one it is the owner's own
        os.chown(shared / "ours", 65534, 65534)
        call("file", "path=a.txt", "--save-fd", shared / "ours")
        st = (shared / "ours").stat()
        equal((st.st_uid, oct(stat.S_IMODE(st.st_mode))), (65534, oct(0o602)))

    with case("--save-fd gives the bits of a group to that group alone, and keeps it where it can"):
        if os.geteuid() != 0:
            skip("needs root, to be somebody else for a moment")
        place, program = folder / "groups", folder / "beam-as-another"
        place.mkdir()
        os.chown(place, 65534, 65534)
        shutil.copy(BEAM, program)
        folder.chmod(0o755)

        def nobody():
            os.setgroups([1234])
            os.setgid(65534)
            os.setuid(65534)
        for gid, gid_then, mode_then in ((0, 65534, 0o604), (1234, 1234, 0o664)):
            (place / "file").write_text("old")
            (place / "file").chmod(0o664)
            os.chown(place / "file", 0, gid)
            with serving("echo", "--listen", f"unix:{folder}/any.sock", "--socket-mode", "0666"):
                done = subprocess.run([program, "call", f"unix:{folder}/any.sock", "echo", "--send-fd",
                                       "-", "--save-fd", place / "file"], input=b"new",
                                      stderr=subprocess.PIPE, preexec_fn=nobody, timeout=PATIENCE)
            equal(done.returncode, OK, done.stderr)
            st = (place / "file").stat()
            equal((st.st_uid, st.st_gid, oct(stat.S_IMODE(st.st_mode))),
                  (65534, gid_then, oct(mode_then)), f"of group {gid}")
            equal((place / "file").read_text(), "new")
        if os.uname().machine in ("x86_64", "aarch64"):  # on a file system that knows no owners
            target.write_text("old")
            target.chmod(0o664)
            call("file", "path=a.txt", "--save-fd", target, preexec_fn=without_fchown)
            equal(oct(stat.S_IMODE(target.stat().st_mode)), oct(0o664))
        os.chown(place, 0, 1234)  # whose new files have its group
        place.chmod(0o2755)
        os.chown(place / "file", 0, 0)
        (place / "file").chmod(0o660)
        call("file", "path=a.txt", "--save-fd", place / "file")
        st = (place / "file").stat()
        equal((st.st_uid, st.st_gid, oct(stat.S_IMODE(st.st_mode))), (0, 0, oct(0o660)))

    with case("--save-fd waits for the disk before the file takes its name"):
        if os.uname().machine not in ("x86_64", "aarch64"):
            skip("the number of fsync(2) is not known here")
        target.write_text("old")
        result = call("file", "path=a.txt", "--save-fd", target, code=OTHER, preexec_fn=without_fsync)
        contains(result.errors, "Input/output error")
        equal(target.read_text(), "old")
        equal(leftovers(), [])

    with case("--save-fd takes a name as long as a name can be"):
        name = "n" * 251 + "\u00e9\u00e9"
        call("file", "path=a.txt", "--save-fd", folder / name)
        equal((folder / name).read_bytes(), b"content of a\n")
        call("file", "path=a.txt", "--save-fd", name, cwd=files / "sub")
        equal((files / "sub" / name).read_bytes(), b"content of a\n")

    with case("--save-fd leaves no part behind when the source fails or a signal comes"):
        call("echo", "--send-fd", files, "--save-fd", folder / "dir", code=OTHER)
        reading, writing = os.pipe()
        process = subprocess.Popen([BEAM, "call", url, "echo", "--send-fd", "-", "--save-fd",
                                    folder / "never"], stdin=reading, stderr=subprocess.DEVNULL)
        os.close(reading)
        until = time.monotonic() + PATIENCE
        while not leftovers() and time.monotonic() < until:
            os.write(writing, b"x")
            os.sched_yield()
        process.terminate()
        equal(process.wait(PATIENCE), -signal.SIGTERM)
        os.close(writing)
        # a file that may not become as long as it would: half of one is none
        process = subprocess.run([BEAM, "call", url, "echo", "--send-fd", "-", "--save-fd",
                                  folder / "never"], input=bytes(100_000), stderr=subprocess.PIPE,
                                 preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE,
                                                                       (50_000, 50_000)))
        equal(process.returncode, -signal.SIGXFSZ)
        equal(leftovers(), [])
        check(not (folder / "never").exists() and not (folder / "dir").exists(), "a file is there")

    with case("--save-fd leaves ignored what was ignored when it began"):
        reading, writing = os.pipe()
        process = subprocess.Popen(
            [BEAM, "call", url, "echo", "--send-fd", "-", "--save-fd", folder / "kept"],
            stdin=reading, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        os.close(reading)
        until = time.monotonic() + PATIENCE
        while not leftovers() and time.monotonic() < until:
            os.write(writing, b"x")
            os.sched_yield()
        process.send_signal(signal.SIGHUP)
        os.close(writing)
        equal(process.wait(PATIENCE), OK)
        check((folder / "kept").exists(), "nothing was saved")

    with case("--save-fd writes to a device instead of replacing it"):
        call("file", "path=a.txt", "--save-fd", "/dev/null")
        check(stat.S_ISCHR(os.stat("/dev/null").st_mode), "/dev/null is no device any more")

    with case("a copy that takes longer than a second shows progress"):
        reading, writing = os.pipe()
        process = subprocess.Popen([BEAM, "call", url, "echo", "--send-fd", "-", "--save-fd",
                                    folder / "slow"], stdin=reading, stderr=subprocess.PIPE,
                                   bufsize=0)
        os.close(reading)
        until = time.monotonic() + PATIENCE
        line = b""
        while b"\n" not in line and time.monotonic() < until:
            os.write(writing, b"x")
            if select.select([process.stderr], [], [], 0.05)[0]:
                line += os.read(process.stderr.fileno(), 1000)
        os.close(writing)
        equal(process.wait(PATIENCE), OK)
        process.stderr.close()
        contains(line.decode(), "MB/s")


def test_ends():
    with case("an unknown service is exit code 8"):
        contains(call("nobody", code=NOT_FOUND).errors, "not found")
        beam("watch", url, "nobody", code=NOT_FOUND)

    with case("what is no name of a service is exit code 2"):
        for name in ("", "x" * 256, b"\xff"):
            for verb in ("call", "watch"):
                result = subprocess.run([BEAM, verb, url, name], capture_output=True)
                check(result.returncode == USAGE and b"1 to 255 bytes" in result.stderr, result)

    with case("an error is JSON with --json, too"):
        answer = json.loads(call("nobody", "--json", code=NOT_FOUND).text)
        equal(answer["code"], "NOT_FOUND")
        check(answer["message"], f"no message in {answer}")

    with case("no socket, a stale socket and a server that is gone are exit code 4"):
        for words in (("call", "echo"), ("watch", "clock")):
            beam(words[0], f"unix:{folder}/none", words[1], code=UNAVAILABLE)
            beam(words[0], f"unix:@beam-none-{os.getpid()}", words[1], code=UNAVAILABLE)
            beam(words[0], f"unix:{folder}/stale", words[1], code=UNAVAILABLE)

    with case("a deadline that passes is exit code 7, at the service and while connecting"):
        call("clock", "rate:=0.01", "count:=1", "--timeout", "50ms", code=DEADLINE)
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as silent:
            silent.bind(str(folder / "silent"))
            silent.listen()
            beam("call", f"unix:{folder}/silent", "echo", "--timeout", "50ms", code=DEADLINE)

    with case("a socket of another user is exit code 5"):
        if os.getuid() != 0:
            skip("only root can become somebody else")
        shutil.copy(BEAM, folder / "beam-copy")
        folder.chmod(0o755)

        def nobody():
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        done = subprocess.run([folder / "beam-copy", "call", url, "echo"], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, preexec_fn=nobody)
        check(done.returncode == PERMISSION, f"ended with {done.returncode}: {done.stderr}")

    with case("a peer of another kind of socket is no crash"):
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as stream:
            stream.bind(str(folder / "stream"))
            stream.listen()
            beam("call", f"unix:{folder}/stream", "echo", "--timeout", "1s", code=UNAVAILABLE)


def test_watch():
    with case("watch prints each message until the end"):
        lines = beam("watch", url, "clock", "rate:=500", "count:=3").text.splitlines()
        equal([line.split()[0] for line in lines], ["n:=1", "n:=2", "n:=3"])

    with case("watch --json --count ends after so many"):
        lines = beam("watch", url, "clock", "rate:=500", "--json", "--count", "2").text.splitlines()
        ticks = [json.loads(line)["metadata"] for line in lines]
        equal([tick["n"] for tick in ticks], [1, 2])
        check(ticks[0]["ns"] < ticks[1]["ns"], f"time went back: {ticks}")

    with case("watch ends with 0 on SIGINT"):
        with watching("clock", "rate:=100") as process:
            contains(read_line(process.stdout), "n:=1")
            process.send_signal(signal.SIGINT)
            equal(process.wait(PATIENCE), OK)
            equal(process.stderr.read(), b"")

    with case("watch ends with 0 on SIGTERM, also while its service says nothing"):
        for stop in (signal.SIGTERM, signal.SIGINT):
            with watching("clock", "rate:=4") as process:
                contains(read_line(process.stdout), "n:=1")
                process.send_signal(stop)
                equal(process.wait(PATIENCE), OK)
                equal(process.stderr.read(), b"")

    with case("clock refuses what makes no sense"):
        for words in (("rate:=0",), ("rate:=-1",), ("rate:=1e9",), ("rate=fast",), ("count:=-1",),
                      ("count:=1.5",)):
            call("clock", *words, code=ANSWERED)

    with case("a slow reader of the clock misses ticks, and they are counted"):
        with watching("clock", "rate:=1000", "--json") as process:
            contains(read_line(process.stdout), '"n":1')
            fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
            tick, pause, until = {"missed": 0}, 0.5, time.monotonic() + PATIENCE
            while not tick.get("missed") and time.monotonic() < until:
                process.send_signal(signal.SIGSTOP)
                # Ticks pass; how many is not important, but a busy machine makes few in a second.
                select.select([], [], [], pause)
                process.send_signal(signal.SIGCONT)
                pause *= 2
                for _ in range(1000):
                    tick = json.loads(read_line(process.stdout))["metadata"]
                    if tick.get("missed"):
                        break
            check(tick.get("missed"), f"nothing was missed: {tick}")
            got = json.loads(read_line(process.stdout))["metadata"]
            check(got["n"] > tick["n"], f"{got} after {tick}")


def test_reverse():
    with case("reverse calls a service of the caller and passes the answer on"):
        equal(call("reverse", "service=echo", "text=hi", "--serve", "echo").text, "text=hi\n")
        body = os.urandom(200_000)
        equal(call("reverse", "service=echo", "--body", "-", "--serve", "echo", stdin=body).out,
              body)
        equal(call("reverse", "service=echo", "--send-fd", files / "a.txt", "--save-fd", "-",
                   "--serve", "echo").out, b"content of a\n")

    with case("reverse passes the error on, too"):
        call("reverse", "service=echo", code=NOT_FOUND)
        call("reverse", code=ANSWERED)
        call("reverse", "service=f", "path=missing", "--serve", f"f=file:{files}", code=NOT_FOUND)

    with case("the deadline of a request covers the call it causes"):
        call("reverse", "service=clock", "rate:=0.01", "count:=1", "--serve", "clock", "--timeout",
             "50ms", code=DEADLINE)


def test_channels():
    """What needs a peer that keeps a channel open: the port to Python."""
    def run(conversation):
        async def with_session():
            session = port.connect(str(folder / "b.sock"), services={"back": back})
            try:
                return await asyncio.wait_for(conversation(session), PATIENCE)
            finally:
                await session.close()

        async def back(message):
            return message.meta, bytes([message.codec]), ()
        return asyncio.run(with_session())

    async def keep_talking(session):
        channel, got = session.channel("echo"), []
        for n in range(5):
            await channel.send({"n": n}, codec=n, end=n == 4)
            answer = await channel.recv()
            got.append((answer.meta["n"], answer.codec))
        return got, await channel.recv()

    with case("echo answers on a channel until the caller ends it, then ends it with OK"):
        equal(run(keep_talking), ([(n, n) for n in range(5)], None))

    async def send_without_reading(session):
        channel, count = session.channel("echo"), 500

        async def send():
            for n in range(count):
                await channel.send({"n": n}, bytes(1000), end=n == count - 1)
        sender = asyncio.create_task(send())
        done, _ = await asyncio.wait({sender}, timeout=0.5)
        check(not done, "the echo took half a megabyte that nobody read")
        got = []
        while message := await channel.recv():
            got.append(message.meta["n"])
        await sender
        return got == list(range(count))

    with case("echo holds back a caller that does not read, and loses nothing"):
        equal(run(send_without_reading), True)

    async def codec_of_call_back(session):
        answer = await session.call("reverse", {"service": "back", "a": [1, {"b": None}]}, codec=7)
        return answer.meta, answer.body

    with case("reverse hands on nested metadata and the codec"):
        equal(run(codec_of_call_back), ({"a": [1, {"b": None}]}, b"\x07"))


def test_nesting():
    """A peer whose metadata is nested as deep as it may be: the port to Python again."""
    deep = "\u009b"
    for _ in range(30):  # within a map, and around a text: 32 in all
        deep = [deep]
    at = folder / "peer.sock"

    async def answer(message):
        return {"deep": deep}, b"", ()

    async def refuse(message):
        raise port.BeamError(9, "no", {"deep": deep})

    def ask(*words, code):
        async def conversation():
            with contextlib.closing(port.listen(str(at))) as listener:
                accepting = asyncio.create_task(
                    port.accept(listener, {"answer": answer, "refuse": refuse}))
                result = await asyncio.to_thread(beam, "call", f"unix:{at}", *words, code=code)
                await (await accepting).close()
            at.unlink()
            return result
        return asyncio.run(conversation())

    with case("metadata is shown however deep it is nested, and as JSON, too"):
        equal(ask("answer", code=OK).text, f"deep:={'[' * 30}\"\\u009b\"{']' * 30}\n")
        equal(json.loads(ask("answer", "--json", code=OK).text), {"metadata": {"deep": deep}})
        answer = json.loads(ask("refuse", "--json", code=ANSWERED).text)
        equal((answer["code"], answer["details"]["deep"]), ("FAILED_PRECONDITION", deep))


def test_kv():
    """A store, as the port to Python sees it: bodies are documents."""
    at, name, store = folder / "kv.sock", "kv", folder / "store.kv"

    def talk(conversation):
        async def with_session():
            session = port.connect(str(at))

            async def ask(verb, **argument):
                answer = await session.call(f"{name}.{verb}", None, documents.encode(argument))
                return documents.decode(answer.body)
            try:
                return await asyncio.wait_for(conversation(session, ask), PATIENCE)
            finally:
                await session.close()
        return asyncio.run(with_session())

    async def change(session, ask):
        put = await ask("put", key="a", value={"n": [1, None]}, seen=0)
        equal(put["rev"], 1)
        equal(await ask("txn", set={"b": 2.5}, delete=["x"]), {"epoch": put["epoch"], "rev": 2})
        try:
            await ask("put", key="b", value=1, seen=1)
            check(False, "a key that had changed was changed")
        except port.BeamError as error:
            equal((error.code, error.details["key"], error.details["rev"]), (10, "b", 2))
        watch = session.channel(f"{name}.watch")
        await watch.send(None, documents.encode({}))
        told = [documents.decode((await watch.recv()).body) for _ in range(3)]
        equal([message["kind"] for message in told], ["head", "snap", "live"])
        equal(told[1]["set"], {"a": {"n": [1, None]}, "b": 2.5})
        await ask("delete", key="a")
        equal(documents.decode((await watch.recv()).body),
              {"kind": "delta", "rev": 3, "delete": ["a"]})
        watch.abort()
        return put["epoch"]

    async def look(session, ask):
        found = await ask("get", key="b")
        return found["epoch"], found["rev"], found["value"], (await ask("scan"))["entries"]

    with case("kv keeps what it is given in a file, over an end on SIGTERM"):
        # Of three reactors one has the store: most requests come in elsewhere.
        with serving("kv", "--listen", f"unix:{at}", "--store", store, "--reactors", "3"):
            talk(lambda session, ask: ask("info"))
            epoch = talk(change)
            text = beam("serve", "kv", "--listen", url, "--store", store, code=OTHER).errors
            contains(text, "another writer")
            check("listening" not in text, text)
        with serving("kv", "--listen", f"unix:{at}", "--store", store, "--sync", "batch"):
            equal(talk(look), (epoch, 2, 2.5, {"b": 2.5}))
        equal(stat.S_IMODE(store.stat().st_mode), 0o600)

    with case("kv without a file forgets, under any name"):
        name = "settings"
        for _ in range(2):
            with serving("settings=kv", "--listen", f"unix:{at}", "--store", "none"):
                talk(change)

    with case("kv does not begin with a file that is none of its own"):
        (folder / "text").write_text("not a store\n" * 100)
        text = beam("serve", "kv", "--listen", url, "--store", folder / "text", code=OTHER).errors
        contains(text, "not a kv file")
        equal((folder / "text").read_text(), "not a store\n" * 100)


def test_signals():
    other = f"unix:{folder}/other.sock"
    with case("call ends by the signal that comes while it waits, and its server serves on"):
        with serving("clock", "echo", "--listen", other):
            for stop in (signal.SIGINT, signal.SIGTERM):
                process = subprocess.Popen([BEAM, "call", other, "clock", "rate:=0.01", "count:=2"],
                                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                until = time.monotonic() + PATIENCE
                while sessions_at(folder / "other.sock") < 1 and time.monotonic() < until:
                    os.sched_yield()
                process.send_signal(stop)
                out, err = process.communicate(timeout=PATIENCE)
                equal((process.returncode, out, err), (-stop, b"", b""))
                equal(beam("call", other, "echo", "a=b").text, "a=b\n")

    with case("serve that is told to end while it starts ends well, and its socket goes"):
        codes = set()
        for pause in range(40):
            process = subprocess.Popen([BEAM, "serve", "echo", "--listen", other],
                                       stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
            for _ in range(pause * pause):
                os.sched_yield()
            process.send_signal((signal.SIGTERM, signal.SIGINT)[pause % 2])
            process.communicate(timeout=PATIENCE)
            codes.add(process.returncode)
            check(not (folder / "other.sock").exists(), "the socket is still there")
        check(OK in codes, codes)
        check(codes <= {OK, -signal.SIGTERM, -signal.SIGINT}, codes)

    with case("serve that is stopped and goes on loses nothing"):
        with serving("clock", "--listen", other) as server:
            with watching("clock", "rate:=1000", "--json", "--count", "400", at=other) as process:
                ticks = []
                for _ in range(400):
                    ticks.append(json.loads(read_line(process.stdout))["metadata"])
                    if len(ticks) % 20 == 0:
                        server.send_signal(signal.SIGSTOP)
                        server.send_signal(signal.SIGCONT)
                equal(process.wait(PATIENCE), OK)
                told = [tick["n"] for tick in ticks]
                equal(told, sorted(set(told)), "numbers")


def sessions_at(path):
    """Connected sockets of a server, as unix(7) lists them by its path: the listening one not counted."""
    with open("/proc/net/unix") as sockets:
        lines = [line.split() for line in sockets if line.rstrip().endswith(f" {path}")]
    return sum(line[3] == "00000000" for line in lines)


def test_serve():
    other = f"unix:{folder}/other.sock"
    with case("serve ends with 0 on SIGTERM and on SIGINT, and its socket goes"):
        for stop in (signal.SIGTERM, signal.SIGINT):
            with serving("echo", "--listen", other, stop=stop):
                equal(stat.S_IMODE((folder / "other.sock").stat().st_mode), 0o600)
                beam("call", other, "echo")
            check(not (folder / "other.sock").exists(), "the socket is still there")

    with case("serve lets a request under way finish before it ends"):
        with serving("clock", "--listen", other, "--drain", "20s") as server:
            with watching("clock", "rate:=10", "count:=5", at=other) as process:
                contains(read_line(process.stdout), "n:=1")
                server.send_signal(signal.SIGTERM)
                rest = process.stdout.read().decode().splitlines()
                equal(process.wait(PATIENCE), OK, process.stderr.read())
                equal(len(rest), 4, rest)
            server.wait(PATIENCE)  # a second signal would end it at once

    with case("a client whose server is killed does not take that for an end"):
        with serving("clock", "--listen", other, code=-signal.SIGKILL) as server:
            with watching("clock", "rate:=100", at=other) as process:
                contains(read_line(process.stdout), "n:=1")
                server.kill()
                code = process.wait(PATIENCE)
                check(code in (UNAVAILABLE, ANSWERED), f"ended with {code}")
                check(process.stderr.read(), "it said nothing")

    with case("serve replaces the socket of a dead server, and not that of a living one"):
        wait_until_refused(folder / "other.sock")
        with serving("echo", "--listen", other):  # after the kill above
            contains(beam("serve", "echo", "--listen", other, code=LIMIT).errors, "in use")
            beam("call", other, "echo")

    with case("serve on an abstract socket, on several, with names, quietly"):
        name = f"unix:@beam-cli-{os.getpid()}"
        with serving("mine=echo", f"yours=file:{files}", "--listen", other, "--listen", name,
                     "--socket-mode", "0666", "--reactors", "3"):
            equal(stat.S_IMODE((folder / "other.sock").stat().st_mode), 0o666)
            for at in (other, name):
                equal(beam("call", at, "mine", "a=b").text, "a=b\n")
                equal(beam("call", at, "yours", "path=a.txt", "--save-fd", "-").out,
                      b"content of a\n")
                beam("call", at, "echo", code=NOT_FOUND)

    with case("serve takes an inherited socket: unix:fd:N"):
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as inherited:
            inherited.bind(str(folder / "inherited"))
            inherited.listen()
            process = subprocess.Popen([BEAM, "serve", "echo", "--listen",
                                        f"unix:fd:{inherited.fileno()}"],
                                       stderr=subprocess.PIPE, bufsize=0,
                                       pass_fds=[inherited.fileno()])
            try:
                contains(read_line(process.stderr), "listening on unix:fd:")
                equal(beam("call", f"unix:{folder}/inherited", "echo", "a=b").text, "a=b\n")
                process.terminate()
                equal(process.wait(PATIENCE), OK)
            finally:
                process.kill()
                process.wait()
                process.stderr.close()

    with case("a long end is told, and a second signal of another kind ends it at once"):
        for first, second in ((signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGTERM)):
            with serving("clock", "--listen", other, "--drain", "20s", code=-second) as server:
                with watching("clock", "rate:=10", at=other) as process:
                    contains(read_line(process.stdout), "n:=1")
                    server.send_signal(first)
                    contains(read_line(server.stderr), "finishing")
                    server.send_signal(second)
                    server.wait(PATIENCE)

    with case("limits: a server without descriptors refuses them, and says so at once"):
        with serving("echo", "--listen", other, "--no-fds"):
            beam("call", other, "echo", "--send-fd", files / "a.txt", code=PERMISSION)
            equal(beam("call", other, "echo", "a=b").text, "a=b\n")

    with case("a file that cannot be a directory of the service file is told before listening"):
        result = beam("serve", f"file:{files}/a.txt", "--listen", other, code=OTHER)
        contains(result.errors, "a.txt")
        contains(result.errors, "Not a directory")
        for dir in (files / "missing", files / "a.txt/x"):
            beam("serve", f"file:{dir}", "--listen", other, code=OTHER)
            call("echo", "--serve", f"file:{dir}", code=OTHER)
        check(not (folder / "other.sock").exists(), "a socket was made")

    with case("a place where no socket can be is no peer that is missing"):
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.closing(stream):
            for at in (f"unix:{folder}/missing/x.sock", "unix:fd:99", f"unix:fd:{stream.fileno()}"):
                beam("serve", "echo", "--listen", at, code=OTHER, pass_fds=[stream.fileno()])
        for at in ("unix:" + "x" * 108, "unix:@" + "x" * 108, "unix:@", "unix:fd:", "unix:fd:x"):
            beam("serve", "echo", "--listen", at, code=USAGE)
            beam("call", at, "echo", code=USAGE)


umask = os.umask(0)
os.umask(umask)
try:
    (files / "sub").mkdir(parents=True)
    (files / "a.txt").write_text("content of a\n")
    (folder / "secret").write_text("secret\n")
    (files / "sub/link").symlink_to("../a.txt")
    (files / "out").symlink_to("../secret")
    (files / "out-dir").symlink_to("..")
    os.mkfifo(files / "fifo")
    for path in (files / "socket", folder / "stale"):
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as one:
            one.bind(str(path))
    test_words()
    with serving("echo", f"file:{files}", "clock", "reverse", "--listen", url, "--reactors", "2"):
        test_output()
        test_echo()
        test_file()
        test_ends()
        test_watch()
        test_reverse()
        test_channels()
    test_nesting()
    test_serve()
    test_kv()
    test_signals()
except BaseException as error:  # the server itself failed: a case of its own
    with case("the server that all cases use starts and ends well"):
        raise error if isinstance(error, Exception) else SystemExit(error)
finally:
    shutil.rmtree(folder, ignore_errors=True)
finish()
