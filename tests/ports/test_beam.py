"""Checks the client in beam.py: test_beam.py [BEAM], where BEAM is the `beam` program (or the environment's
BEAM_PROGRAM). Against `beam serve`, and against the port in strict/, which ends a session that breaks a rule.
"""
import asyncio, os, pathlib, signal, socket, subprocess, sys, tempfile, threading, time
sys.dont_write_bytecode = True
import beam
from strict import session as strict

SECONDS = 20
BEAM = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("BEAM_PROGRAM")
CASES = []


def case(function):
    CASES.append(function)
    return function


def same(got, wanted, what="value"):
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r:.300}, wanted {wanted!r:.300}")


def fails(code, function, *arguments, **more):
    try:
        got = function(*arguments, **more)
    except beam.BeamError as error:
        same(error.code, code, "code")
        return error
    raise AssertionError(f"got {got!r:.300}, wanted an error of code {code}")


def served(folder, program):
    """A session with the program, as soon as it listens."""
    while True:
        try:
            return beam.Session.connect(folder + "/s")
        except (FileNotFoundError, ConnectionRefusedError):
            if program.poll() is not None:
                raise AssertionError(f"beam serve ended with {program.returncode}") from None
            time.sleep(0.01)


class Strict:
    """A session with an acceptor of the strict port, which lives in a thread. `failed` says what it did not like."""
    def __init__(self, services=None, events=None, **limits):
        self.options, self.limits, self.ready = (services, events), limits, threading.Event()

    def __enter__(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in ours, theirs:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

        async def live():
            self.peer = strict.Session(theirs, "acceptor", *self.options, **self.limits)
            await self.peer.wait(lambda: False)
        self.thread = threading.Thread(target=asyncio.run, args=[live()], daemon=True)
        self.thread.start()
        self.session = beam.Session(ours)
        return self

    def __exit__(self, kind, *_):
        self.session.__exit__()
        self.thread.join(5)
        if kind is None:
            same((self.thread.is_alive(), self.peer.failed, self.peer.channels), (False, None, {}), "the other end")


async def once(session, ready):
    """Wait for it, and then long enough for one who goes on regardless to be caught."""
    await session.wait(ready)
    for _ in range(200):
        await asyncio.sleep(0)


async def echo(message):
    return message.meta, message.body, message.fds


# against `beam serve`

@case
def echo_of_metadata_and_a_large_body(s, folder, program):
    for size in (0, 1, 65_400, 65_504, 65_505, 200_000, 1 << 20):
        body = os.urandom(size)
        meta, back, fds = s.call("echo", {"text": "hi", "size": size}, body, timeout=SECONDS)
        same((meta, back == body, fds), ({"text": "hi", "size": size}, True, []), f"echo of {size}")


@case
def a_file_comes_as_a_descriptor(s, folder, program):
    for _ in range(100):                    # more than the descriptors that may be under way
        meta, _, fds = s.call("file", {"path": "hello.txt"}, timeout=SECONDS)
        with os.fdopen(fds[0], "rb") as file:
            same((meta["size"], len(fds), file.read()), (12, 1, b"hello, file\n"))


@case
def descriptors_go_there_and_back(s, folder, program):
    r, w = os.pipe()
    os.write(w, b"through a pipe")
    os.close(w)
    for _ in range(100):
        back = s.call("echo", fds=[r, r], timeout=SECONDS)[2]
        same(len(back), 2)
        data = os.read(back[0], 99)
        for fd in back:
            os.close(fd)
        if data:
            same(data, b"through a pipe")
    os.close(r)


@case
def requests_go_both_ways_on_one_session(s, folder, program):
    def shout(meta, body, fds):
        if meta["n"] == 3:
            return {"n": 3}, body.upper()
        return s.call("reverse", {"service": "shout", "n": meta["n"] + 1}, body)
    s.serve("shout", shout)
    for size in (10, 1 << 20):
        meta, body, _ = s.call("reverse", {"service": "shout", "n": 0}, b"x" * size, timeout=SECONDS)
        same((meta, body == b"X" * size), ({"n": 3}, True))
    fails(beam.NOT_FOUND, s.call, "reverse", {"service": "nobody"}, timeout=SECONDS)


@case
def a_handler_may_fail(s, folder, program):
    def broken(meta, body, fds):
        raise ValueError("no")
    s.serve("broken", broken)
    fails(beam.INTERNAL, s.call, "reverse", {"service": "broken"}, timeout=SECONDS)
    same(s.call("echo", {"still": "there"}, timeout=SECONDS)[0], {"still": "there"})


@case
def events_of_the_clock(s, folder, program):
    got = [meta for meta, _, _ in s.stream("clock", {"rate": 1000, "count": 1000}, timeout=SECONDS)]
    first = got[0]["n"]
    same([meta["n"] - first for meta in got], list(range(1000)), "n")
    same(sorted(meta["ns"] for meta in got), [meta["ns"] for meta in got], "ns")


@case
def who_stops_listening_cancels(s, folder, program):
    clock = s.stream("clock", {"rate": 1000}, timeout=SECONDS)
    same(sorted(next(clock)[0]), ["n", "ns"])
    clock.close()
    same(s.call("echo", {"n": 1}, timeout=SECONDS)[0], {"n": 1})
    same(list(s.channels), [0], "channels left")


@case
def an_unknown_service_is_not_found(s, folder, program):
    error = fails(beam.NOT_FOUND, s.call, "nobody serves this", timeout=SECONDS)
    same(bool(error.text), True, "it says why")
    fails(beam.NOT_FOUND, s.call, "nobody serves this", None, bytes(1 << 20), timeout=SECONDS)


@case
def a_deadline_passes(s, folder, program):
    fails(beam.DEADLINE_EXCEEDED, s.call, "clock", {"rate": 1, "count": 1000}, timeout=0.2)
    s.serve("slow", lambda meta, body, fds: time.sleep(0.2))
    fails(beam.DEADLINE_EXCEEDED, s.call, "reverse", {"service": "slow"}, timeout=0.1)
    same(s.call("echo", {"n": 1}, timeout=SECONDS)[0], {"n": 1})


@case
def a_server_that_ends_takes_no_more(s, folder, program):
    s.serve("wait", lambda meta, body, fds: program.send_signal(signal.SIGTERM) or s.run(0.2) or {"finished": True})
    same(s.call("reverse", {"service": "wait"}, timeout=SECONDS)[0], {"finished": True})
    fails(beam.UNAVAILABLE, s.call, "echo", timeout=SECONDS)


# against the strict port

@case
def events_share_one_channel_and_wait_for_its_credit():
    seen = []

    async def tick(message):
        if not seen:
            await once(message.channel.session, lambda: message.channel.theirs <= 0)
        seen.append((message.channel.id, message.meta["n"], len(message.body)))
    with Strict({"echo": echo}, {"tick": tick}, window=16384) as other:
        for n in range(100):
            other.session.event("tick", {"n": n}, bytes(2000))
        other.session.call("echo", timeout=SECONDS)
    same(seen, [(1, n, 2000) for n in range(100)])


@case
def descriptors_wait_for_credit():
    seen = []

    async def take(message):
        if not seen:
            await once(message.channel.session, lambda: message.channel.session.fd_theirs == 0)
        seen.append(len(message.fds))
    with Strict({"echo": echo}, {"take": take}, fds=3) as other:
        fd = os.open("/dev/null", os.O_RDONLY)
        for n in range(20):
            other.session.event("take", fds=[fd])
        os.close(fd)
        other.session.call("echo", timeout=SECONDS)
    same(seen, [1] * 20)


@case
def channels_are_not_more_than_the_peer_allows():
    async def hold(message):
        await once(message.channel.session, lambda: full or message.channel.session.opened(False) == 20)
        full.append(message.channel.session.opened(False))
        return message.meta

    async def busy(message):
        calls = [message.channel.session.call("back", {"n": n}) for n in range(30)]
        return {"n": [answer.meta["n"] for answer in await asyncio.gather(*calls)]}
    full = []
    with Strict({"hold": hold, "busy": busy}, channels=20) as other:
        other.session.serve("back", lambda meta, body, fds: other.session.call("hold", meta))
        same(other.session.call("busy", timeout=SECONDS)[0], {"n": list(range(30))})
    same(max(full), 20, "channels")


@case
def refused_events_are_noticed():
    with Strict({"echo": echo}) as other:
        other.session.event("unheard", {})
        other.session.call("echo", timeout=SECONDS)
        fails(beam.NOT_FOUND, other.session.event, "unheard", {})


@case
def events_come_and_are_paid_for():
    seen = []

    async def send(message):
        for n in range(100):
            await message.channel.session.event("tick", {"n": n}, bytes(n * 1000))
        return {}
    with Strict({"send": send}) as other:
        other.session.serve("tick", lambda meta, body, fds: seen.append((meta["n"], len(body))))
        other.session.call("send", timeout=SECONDS)
        other.session.wait(lambda: len(seen) == 100, time.monotonic() + SECONDS)
    same(seen, [(n, n * 1000) for n in range(100)])


@case
def the_rules_are_kept_while_both_sides_are_busy():
    async def busy(message):
        session = message.channel.session
        calls = [session.call("back", {"n": n}, bytes(n * 9000), parent=message.channel) for n in range(30)]
        return {"n": [answer.meta["n"] for answer in await asyncio.gather(*calls)]}, message.body
    with Strict({"echo": echo, "busy": busy}, window=16384, fds=2, channels=4) as other:
        s, fd = other.session, os.open("/dev/null", os.O_RDONLY)

        def back(meta, body, fds):
            for got in s.call("echo", meta, body, fds=[fd, fd])[2]:
                os.close(got)
            return meta, body
        s.serve("back", back)
        meta, body, _ = s.call("busy", None, bytes(1 << 20), timeout=SECONDS)
        same((meta, len(body)), ({"n": list(range(30))}, 1 << 20))
        os.close(fd)


@case
def attached_channels_are_refused():
    refused = []

    async def attach(message):
        extra = [message.channel.session.channel(mode=mode) for mode in (strict.MESSAGES, strict.BYTES)]
        await message.channel.send({"n": 1}, attached=extra, end=True)
        for channel in extra:
            try:
                refused.append(await channel.recv())
            except strict.BeamError as error:
                refused.append(error.code)
    with Strict({"attach": attach, "echo": echo}) as other:
        same(other.session.call("attach", timeout=SECONDS)[0], {"n": 1})
        other.session.call("echo", timeout=SECONDS)
    same(refused, [beam.CANCELLED] * 2)


def run(function):
    if function.__code__.co_argcount == 0:
        return function()
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "files").mkdir()
        pathlib.Path(folder, "files", "hello.txt").write_bytes(b"hello, file\n")
        program = subprocess.Popen([BEAM, "serve", "echo", f"file:{folder}/files", "reverse", "clock",
                                    "--listen", f"unix:{folder}/s", "--quiet"])
        try:
            with served(folder, program) as session:
                function(session, folder, program)
        finally:
            program.terminate()
            try:
                program.wait(5)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()


def main():
    if not BEAM or not os.access(BEAM, os.X_OK):
        print("no beam program was given, as an argument or as BEAM_PROGRAM")
        return 77
    passed = failed = 0

    def late(*_):
        raise TimeoutError(f"not done after {SECONDS} s")
    signal.signal(signal.SIGALRM, late)
    for function in CASES:
        before = os.listdir("/proc/self/fd")
        signal.setitimer(signal.ITIMER_REAL, SECONDS, 1)      # again and again: a handler may have caught it
        try:
            run(function)
            same(os.listdir("/proc/self/fd"), before, "fds open")
            passed += 1
            print(f"ok    {function.__name__}", flush=True)
        except Exception as error:
            failed += 1
            print(f"FAIL  {function.__name__}: {type(error).__name__}: {error}", flush=True)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
