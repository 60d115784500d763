"""Checks the port in strict/: test_port.py [BEAM], where BEAM is the `beam` program (or the environment's BEAM_PROGRAM).

(a) the vectors in tests/vectors; (b) two Python ends that talk to each other, and frames made to break the rules;
(c) Python against `beam serve`. One line a case, then the sums. Every case has SECONDS; it must leave no fd behind.
"""
import asyncio, json, os, pathlib, resource, socket, subprocess, sys, tempfile
sys.dont_write_bytecode = True
import kv
from kv_json import json_text
from strict import session as beam, wire
from strict.wire import *

SECONDS = 20
VECTORS = pathlib.Path(__file__).resolve().parent.parent / "vectors"
BEAM = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("BEAM_PROGRAM")
CASES = []


class Skip(Exception):
    pass


def case(function):
    CASES.append(function)
    return function


def same(got, wanted, what="value"):
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r:.300}, wanted {wanted!r:.300}")


async def fails(awaitable, code):
    try:
        got = await awaitable
    except beam.BeamError as error:
        same(error.code, code, "code")
        return error
    raise AssertionError(f"got {got!r}, wanted an error of code {code}")


def vectors(name):
    if not (VECTORS / name).exists():
        raise Skip(f"there is no {name}")
    return json.loads((VECTORS / name).read_text())


# (a) vectors

def check_vectors(name, judge):
    """judge(bytes, vector) -> error; it raises when a valid one is not understood as it should be."""
    wrong, all_of_them = [], vectors(name)
    for vector in all_of_them:
        try:
            same(judge(bytes.fromhex(vector["hex"]), vector), vector["error"], "error")
        except Exception as error:
            wrong.append(f"\n    {vector['name']}: {error!r}")
    if wrong:
        raise AssertionError(f"{len(wrong)} of {len(all_of_them)}" + "".join(wrong[:20]))
    return f"{len(all_of_them)} documents" if name == "kv.json" else f"{len(all_of_them)} packets"


@case
async def kv_vectors():
    def judge(data, vector):
        try:
            value = kv.decode(data)
        except kv.KvError as error:
            return str(error)
        same(kv.encode(value).hex(), data.hex(), "encoded again")
        same(json_text(value), vector["json"], "as JSON")
    return check_vectors("kv.json", judge)


def summary(frame, later, byte_channels):
    """What the packet says, in the words of session.md section 12."""
    def flags(*names):
        there = [name for bit, name in enumerate(names) if frame.flags >> bit & 1]
        return " " + "|".join(there) if there else ""
    c, ch = frame.content, f"ch={frame.id}"
    if frame.kind >= 0x80:
        return f"IGNORED kind={frame.kind} fds={frame.fds} length={len(c)}"
    if frame.kind == HELLO:
        name, fds = f" name={c['name']}" if c["name"] else "", "none" if c["fds"] is None else c["fds"]
        return (f"HELLO version={c['version']} role={c['role']}{name} window={c['window']} channels={c['channels']} "
                f"message={c['message']} fds={fds}" + (f" ping={c['ping']}" if c["ping"] else ""))
    if frame.kind == PING:
        return f"PING{flags('ACK')} token={c}"
    if frame.kind == CREDIT:
        return f"CREDIT {ch} amount={c}"
    if frame.kind in (END, GOAWAY):
        *first, code, details = c
        start = f"GOAWAY last={first[0]}" if first else f"END {ch}{flags('ABORT')}"
        return f"{start} code={code} details={0 if details is None else len(kv.encode(details))}"
    text = f"MSG {ch}{flags('OPEN', 'MORE', 'END', 'ONEWAY')}"
    if frame.id in later or frame.id in byte_channels:
        (later.add if frame.flags & MORE else later.discard)(frame.id)
        return f"{text} bytes={len(c)}"
    head = wire.parse_head(frame)
    (later.add if frame.flags & MORE else later.discard)(frame.id)
    byte_channels.update(id for id, mode in head.attached if mode == BYTES)
    attached = ",".join(f"{id}:{'bytes' if mode else 'messages'}" for id, mode in head.attached)
    return "".join([
        text, f" fds={frame.fds}" * (frame.fds > 0),
        f" name={head.name} depth={head.depth} deadline={head.deadline}" if frame.flags & OPEN else "",
        f" total={head.total}" if frame.flags & MORE else "", f" attached={attached}" if attached else "",
        f" meta={head.meta_len}", f" codec={head.codec}" if head.codec else "", f" body={len(head.body)}"])


@case
async def session_vectors():
    def judge(data, vector):
        later, byte_channels = set(), set()
        try:
            said = [summary(frame, later, byte_channels) for frame in wire.parse(data)]
        except Violation as error:
            return str(error)
        same("; ".join(said), vector["summary"], "summary")
    return check_vectors("session.json", judge)


# (b) two Python ends

class Pair:
    """An opener a and an acceptor b over a socket pair; both are closed at the end."""
    def __init__(self, a=None, b=None, services=None, events=None, back=None):
        self.options = {"services": back, **(a or {})}, {"services": services, "events": events, **(b or {})}

    async def __aenter__(self):
        ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.a, self.b = (beam.Session(end, role, **options) for end, role, options in
                          zip(ends, ("opener", "acceptor"), self.options))
        return self.a, self.b

    async def __aexit__(self, *_):
        await self.a.close()
        await self.b.close()


async def echo(message):
    return message.meta, message.body, message.fds


def pipe_with(data):
    r, w = os.pipe()
    os.write(w, data)
    os.close(w)
    return r


def read_all(fd):
    with os.fdopen(fd, "rb") as file:
        return file.read()


@case
async def echo_of_metadata_and_body_of_every_size():
    async with Pair(services={"echo": echo}) as (a, b):
        for size in (0, 1, 7, 8, 65_400, 65_460, 65_470, 65_480, 65_504, 65_505, 65_520, 65_521, 131_024, 300_000, 5 << 20):
            body = os.urandom(size)
            answer = await a.call("echo", {"size": size, "text": "hi"}, body, codec=1)
            same((answer.meta, answer.body == body), ({"size": size, "text": "hi"}, True))
        same((await a.call("echo")).meta, {})
        same((len(a.channels), len(b.channels), b.budget), (0, 0, beam.BUDGET), "left")


@case
async def small_calls_go_past_a_large_message():
    async with Pair(services={"echo": echo}) as (a, b):
        large = [asyncio.create_task(a.call("echo", None, bytes(15 << 20))) for _ in range(2)]
        await a.wait(lambda: a.large)
        for n in range(10):
            same((await a.call("echo", {"n": n})).meta, {"n": n})
            same([task.done() for task in large], [False, False], "large ones done")
        same([len((await task).body) for task in large], [15 << 20] * 2)


@case
async def identity_is_what_the_kernel_says():
    async with Pair() as (a, b):
        await a.ping()
        same((a.identity, b.identity), ((os.getpid(), os.getuid(), os.getgid()),) * 2)


@case
async def fds_travel_both_ways():
    async with Pair(services={"echo": echo}) as (a, b):
        fd = pipe_with(b"through a pipe")
        answer = await a.call("echo", None, b"", [fd])
        os.close(fd)
        same(os.get_inheritable(answer.fds[0]), False, "inheritable")
        same(read_all(answer.fds[0]), b"through a pipe")


@case
async def fds_wait_for_credit():
    async with Pair(services={"hold": None}, b={"fds": 2}) as (a, b):
        go, fd = asyncio.Event(), pipe_with(b"")
        came = []

        async def stream(message):
            await go.wait()
            while message:
                came.append(len(message.fds))
                beam.close_all(message.fds)
                message.fds.clear()
                message = await message.channel.recv()
        b.services["hold"] = stream
        channel = a.channel("hold", timeout=10)
        await channel.send(None, b"", [fd])
        await channel.send(None, b"", [fd])
        third = asyncio.create_task(channel.send(None, b"", [fd, fd], end=True))
        await a.ping()
        same((third.done(), a.fd_credit), (False, 1), "third one sent, credit left (the first has been taken)")
        go.set()
        await third
        same(await channel.recv(), None)
        same(came, [1, 1, 2])
        await a.ping()
        same((a.fd_credit, b.fd_theirs), (2, 2))
        os.close(fd)


@case
async def a_full_fd_table_refuses_one_message_and_not_the_session():
    async with Pair(services={"echo": echo}) as (a, b):
        fd, limits = pipe_with(b""), resource.getrlimit(resource.RLIMIT_NOFILE)
        await a.ping()
        call = asyncio.create_task(a.call("echo", None, b"", [fd, fd]))
        await asyncio.sleep(0)              # it is in the socket now
        free = os.dup(fd)
        os.close(free)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, limits[1]))       # room for one of the two
            await fails(call, RESOURCE_EXHAUSTED)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        answer = await a.call("echo", {"n": 1})
        same(answer.meta, {"n": 1})
        await a.ping()
        same(a.fd_credit, 64)
        os.close(fd)


@case
async def requests_nest_and_carry_depth_and_deadline():
    seen = []

    def bounce(session):
        async def handler(message):
            seen.append((message.channel.depth, message.channel.deadline is not None))
            n = message.meta["n"]
            return {"n": n, "sum": 0} if n == 0 else {
                "n": n, "sum": n + (await session().call("bounce", {"n": n - 1}, parent=message.channel)).meta["sum"]}
        return handler
    async with Pair() as (a, b):
        a.services["bounce"], b.services["bounce"] = bounce(lambda: a), bounce(lambda: b)
        same((await a.call("bounce", {"n": 10}, timeout=5)).meta, {"n": 10, "sum": 55})
        same(seen, [(depth, True) for depth in range(11)])
        seen.clear()
        error = await fails(a.call("bounce", {"n": 30}), RESOURCE_EXHAUSTED)
        same((len(seen), "deep" in error.message), (17, True), "served until depth 16")


@case
async def a_slow_reader_stops_the_sender():
    go = asyncio.Event()

    async def slow(message):
        await go.wait()
        count = 1
        while await message.channel.recv():
            count += 1
        return {"count": count}
    async with Pair(services={"slow": slow}, b={"window": 16384}) as (a, b):
        channel, sent = a.channel("slow", timeout=10), 0

        async def feed():
            nonlocal sent
            for _ in range(100):
                await channel.send(None, bytes(1000))
                sent += 1
            channel.end()
        feeding = asyncio.create_task(feed())
        await a.ping()
        await a.ping()
        same((sent, channel.credit), (16, 16384 - 16 * 1064), "messages sent, credit")     # 16 384 / 1064 = 15.4
        go.set()
        await feeding
        same((await channel.recv()).meta, {"count": 100})
        same(await channel.recv(), None)


@case
async def large_messages_are_paid_for_at_their_start():
    async with Pair(services={"echo": echo}, b={"window": 16384}) as (a, b):
        async def count(message):
            sizes = [len(message.body)]
            while more := await message.channel.recv():
                sizes.append(len(more.body))
            return {"sizes": sizes}
        b.services["count"] = count
        channel = a.channel("count", timeout=10)
        for size in (200_000, 100, 300_000):
            await channel.send(None, bytes(size))
        channel.end()
        same((await channel.recv()).meta, {"sizes": [200_000, 100, 300_000]})
        same(await channel.recv(), None)


@case
async def streams_of_answers_end_with_their_status():
    async def count(message):
        for n in range(message.meta["n"]):
            await message.channel.send({"n": n})
        if message.meta["n"] == 3:
            raise beam.BeamError(OUT_OF_RANGE, "three")
    async with Pair(services={"count": count}) as (a, b):
        for n, code in (500, OK), (3, OUT_OF_RANGE):
            channel, got = a.channel("count", timeout=10), []
            await channel.send({"n": n})        # our direction stays open: C3 ends it
            try:
                while message := await channel.recv():
                    got.append(message.meta["n"])
                same(code, OK)
            except beam.BeamError as error:
                same((error.code, error.message), (code, "three"))
            same(got, list(range(n)))
        await a.ping()
        same((a.channels, b.channels), ({}, {}), "channels left")


@case
async def errors_say_why():
    async def broken(message):
        raise ValueError("no")

    async def denied(message):
        raise beam.BeamError(PERMISSION_DENIED, "not for you", {"message": "not for you", "who": 7})
    async with Pair(services={"echo": echo, "broken": broken, "denied": denied}, b={"message": 1000}) as (a, b):
        await fails(a.call("nobody"), NOT_FOUND)
        await fails(a.call("broken"), INTERNAL)
        same((await fails(a.call("denied"), PERMISSION_DENIED)).details, {"message": "not for you", "who": 7})
        await fails(a.call("echo", None, bytes(1001)), RESOURCE_EXHAUSTED)
        await fails(b.call("echo", timeout=5), NOT_FOUND)
        same((await a.call("echo", {"still": "there"})).meta, {"still": "there"})


@case
async def deadlines_hold_at_both_ends():
    cancelled = asyncio.Event()

    async def sleep(message):
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()
    async with Pair(services={"sleep": sleep, "echo": echo}) as (a, b):
        await fails(a.call("sleep", timeout=0.05), DEADLINE_EXCEEDED)
        await cancelled.wait()
        channel = a.channel("sleep", timeout=0.05)
        await channel.send(end=True)
        await fails(channel.recv(), DEADLINE_EXCEEDED)      # said by the one who serves
        same((await a.call("echo", {"n": 1})).meta, {"n": 1})


@case
async def who_is_cancelled_cancels():
    started, stopped = asyncio.Event(), asyncio.Event()

    async def wait(message):
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()
    async with Pair(services={"wait": wait}) as (a, b):
        call = asyncio.create_task(a.call("wait"))
        await started.wait()
        call.cancel()
        await stopped.wait()
        await a.ping()
        same((a.channels, b.channels), ({}, {}))


@case
async def events_share_one_channel():
    seen, enough = [], asyncio.Event()

    async def tick(message):
        seen.append((message.channel.id, message.meta["n"]))
        if len(seen) == 200:
            enough.set()
    async with Pair(events={"tick": tick}) as (a, b):
        for n in range(200):
            await a.event("tick", {"n": n}, bytes(2000))
        await enough.wait()
        same(seen, [(1, n) for n in range(200)])
        await a.event("unheard", {})
        await a.ping()
        same(a.streams["unheard"].status.code, NOT_FOUND)


@case
async def attached_channels_carry_bytes_and_messages():
    async with Pair() as (a, b):
        async def open_both(message):
            stream, talk = b.channel(mode=BYTES), b.channel()
            await message.channel.send({"size": 200_000}, b"", (), [stream, talk], end=True)
            await stream.send(body=bytes(range(250)) * 800, end=True)
            await talk.send({"hello": 1})
            same((await talk.recv()).meta, {"hello": 2})
            talk.abort(CANCELLED, "enough")
        b.services["open"] = open_both
        answer = await a.call("open")
        stream, talk = answer.attached
        same((stream.mode, talk.mode, stream.id, talk.id), (BYTES, MESSAGES, 2, 4))
        data = b""
        while piece := await stream.recv():
            data += piece.body
        stream.end()
        same(data == bytes(range(250)) * 800, True)
        same((await talk.recv()).meta, {"hello": 1})
        await talk.send({"hello": 2})
        await fails(talk.recv(), CANCELLED)
        await a.ping()
        same((a.channels, b.channels), ({}, {}))


@case
async def channels_are_not_more_than_the_peer_allows():
    go, most = asyncio.Event(), 0

    async def hold(message):
        nonlocal most
        most = max(most, len(message.channel.session.channels))
        await go.wait()
        return {}
    async with Pair(services={"hold": hold}, b={"channels": 20}) as (a, b):
        calls = [asyncio.create_task(a.call("hold")) for _ in range(60)]
        await a.ping()
        await a.ping()
        same(len(a.channels), 20)
        go.set()
        await asyncio.gather(*calls)
        same(most, 20)


@case
async def goaway_lets_finish_what_has_begun():
    started, go = asyncio.Event(), asyncio.Event()

    async def wait(message):
        started.set()
        await go.wait()
        return {"finished": True}
    async with Pair(services={"wait": wait, "echo": echo}, back={"echo": echo}) as (a, b):
        call = asyncio.create_task(a.call("wait"))
        await started.wait()
        b.goaway()
        late = asyncio.create_task(a.call("echo"))          # crosses the GOAWAY, or comes behind it
        await fails(late, UNAVAILABLE)
        await fails(a.call("echo"), UNAVAILABLE)
        same((await b.call("echo", {"n": 1})).meta, {"n": 1}, "the other direction")
        go.set()
        same((await call).meta, {"finished": True})
        await a.wait(lambda: False)
        await b.wait(lambda: False)
        same((a.failed, b.failed), (None, None))


@case
async def a_lost_session_is_no_success():
    started = asyncio.Event()

    async def wait(message):
        started.set()
        await asyncio.sleep(60)
    async with Pair(services={"wait": wait}) as (a, b):
        call = asyncio.create_task(a.call("wait"))
        await started.wait()
        await b.close()
        await fails(call, UNKNOWN)
        await fails(a.call("wait"), UNAVAILABLE)


@case
async def who_breaks_the_rules_is_told_and_left():
    async with Pair(services={"echo": echo}) as (a, b):
        await a.ping()
        for packet in (wire.frame(0, 9), wire.ping(1), wire.ping(2)):     # b closes with the last two unread
            a.push(packet)
        await a.wait(lambda: False)
        same((a.failed, b.failed), ("FRAME_KIND", "FRAME_KIND"))


def message(id, flags=0, body=b"", name="s", total=None, attached=(), fds=0, meta=b""):
    head = wire.head((0, 0, name) if flags & OPEN else None, total, attached, 0, meta)
    return wire.frame(id, MSG, head + body, flags, fds, len(attached))


HI = wire.hello("opener", "x", {"fds": 2})
OPENED = message(1, OPEN)
BROKEN = {      # what an acceptor with a window of 16 384, 16 channels and 3 fds is sent, and its error
    "HELLO_MISSING": [wire.ping(1)],
    "HELLO_REPEATED": [HI, HI],
    "HELLO_ROLE": [wire.hello("acceptor", "x", {})],
    "FRAME_CHANNEL an id of the other side": [HI, message(2, OPEN)],
    "FRAME_CHANNEL ids that go back": [HI, message(3, OPEN), message(1, OPEN)],
    "FRAME_CHANNEL the same id": [HI, OPENED, OPENED],
    "FRAME_CHANNEL nobody has opened it": [HI, message(1)],
    "FRAME_CHANNEL credit for one not opened": [HI, wire.credit(2, 1)],
    "FRAME_CHANNEL a message behind the end": [HI, message(1, OPEN | LAST), message(1)],
    "FRAME_CHANNEL two ends": [HI, OPENED, wire.end(1, 0), wire.end(1, 0)],
    "FRAME_CHANNEL an attached id that goes back": [HI, message(3, OPEN, attached=[(1, 0)])],
    "FRAME_CHANNEL attached to a dropped message": [HI, OPENED, wire.end(1, 1, "", ABORT), message(1, attached=[(2, 0)])],
    "FRAME_FDS fewer than announced": [HI, message(1, OPEN, fds=1)],
    "FRAME_FLAGS OPEN within a message": [HI, message(1, OPEN | MORE, total=9), message(1, OPEN)],
    "FRAME_FDS within a message": [HI, message(1, OPEN | MORE, total=9), (wire.frame(1, MSG, b"x" * 9, 0, 1), 1)],
    "FRAME_ATTACHMENT within a message": [HI, message(1, OPEN | MORE, total=9), wire.frame(1, MSG, b"x" * 9, 0, 0, 1)],
    "FRAGMENT an empty frame": [HI, message(1, OPEN | MORE, total=9), wire.frame(1, MSG, b"", MORE)],
    "FRAGMENT too much": [HI, message(1, OPEN | MORE, total=9), wire.frame(1, MSG, bytes(10))],
    "FRAGMENT too little": [HI, message(1, OPEN | MORE, total=9), wire.frame(1, MSG, bytes(8))],
    "FRAGMENT whole, and more to come": [HI, message(1, OPEN | MORE, total=9), wire.frame(1, MSG, bytes(9), MORE)],
    "FRAGMENT an end within a message": [HI, message(1, OPEN | MORE, total=9), wire.end(1, 0)],
    "FLOW_CONTROL a message without credit": [HI, message(1, OPEN, bytes(16384 - 64)), message(1)],
    "FLOW_CONTROL fds without credit": [HI, (message(1, OPEN, fds=4), 4)],
    "FLOW_CONTROL bytes without credit": [HI, message(1, OPEN, attached=[(3, 1)]), wire.frame(3, MSG, bytes(16384)),
                                          wire.frame(3, MSG)],
    "FRAME_FLAGS MORE in byte mode": [HI, message(1, OPEN, attached=[(3, 1)]), wire.frame(3, MSG, b"x", MORE)],
    "TOO_MANY_CHANNELS": [HI, *(message(2 * n + 1, OPEN) for n in range(17))],
    "TOO_MANY_CHANNELS attached": [HI, message(1, OPEN, attached=[(2 * n + 3, 0) for n in range(16)])],
    "CREDIT_OVERFLOW": [HI, OPENED, wire.credit(1, 2**62), wire.credit(1, 2**62)],
    "CREDIT_OVERFLOW of fds": [HI, wire.credit(0, 2**62)],
    "TOO_MANY_ABORTS": [HI, *(m for n in range(1, 500, 2) for m in (message(n, OPEN), wire.end(n, 1, "", ABORT)))],
    "none: ends of one that is gone": [HI, OPENED, wire.end(1, 1, "", ABORT), wire.end(1, 0), message(1), wire.credit(1, 5)],
    "none: attached to a message that is dropped": [HI, OPENED, wire.end(1, 1, "", ABORT), message(1, attached=[(3, 1)])],
    "none: kinds nobody knows": [HI, (wire.frame(77, 0x80, b"abc", 255, 2, 3), 2)],
    "none: credit up to 2^62": [HI, OPENED, wire.credit(1, 2**62 - 16384)],
    "none: abort within a message": [HI, message(1, OPEN | MORE, total=9), wire.end(1, 1, "", ABORT), message(1)],
    "none: messages up to the credit": [HI, message(1, OPEN, bytes(16384 - 65)), message(1, 0, bytes(60000))],
    "none: an unknown service, and what comes after": [HI, message(1, OPEN | MORE, name="?", total=99), message(1, 0, b"x")],
}


@case
async def each_broken_rule_has_its_name():
    for name, packets in BROKEN.items():
        async def never(_):
            await asyncio.sleep(60)
        session = beam.Session(None, "acceptor", {"s": never}, window=16384, channels=16, fds=3)
        try:
            for packet in packets:
                packet, fds = packet if isinstance(packet, tuple) else (packet, 0)
                session.receive(packet, [os.open("/dev/null", os.O_RDONLY) for _ in range(fds)])
            got = "none"
        except Violation as error:
            got = str(error)
        session.lose()
        await asyncio.gather(*session.tasks, return_exceptions=True)
        same(got, name.split()[0].strip(":"), name)
    return f"{len(BROKEN)} sequences"


@case
async def announced_bodies_fit_a_budget():
    session = beam.Session(None, "acceptor", {"s": echo}, message=2**31 - 1)
    session.receive(HI)
    session.receive(message(1, OPEN | MORE, b"x", total=20 << 20))
    session.receive(message(3, OPEN | MORE, b"x", total=20 << 20))
    same((sorted(session.channels), session.budget), ([1], 12 << 20))
    same(session.out.pop()[0], wire.end(3, RESOURCE_EXHAUSTED, "too many large messages at a time", ABORT))
    session.receive(wire.end(1, CANCELLED, "", ABORT))
    same((session.channels, session.budget), ({}, 32 << 20))
    session.lose()
    await asyncio.gather(*session.tasks, return_exceptions=True)


@case
async def a_path_is_listened_on_and_connected_to():
    with tempfile.TemporaryDirectory() as folder:
        with beam.listen(folder + "/s") as listener:
            a = beam.connect(folder + "/s")
            b = await beam.accept(listener, {"echo": echo})
            same((await a.call("echo", {"n": 1}, b"x")).body, b"x")
            same(b.identity, (os.getpid(), os.getuid(), os.getgid()))
            await a.close()
            await b.close()


# (c) against `beam serve`

class Served:
    """`beam serve` in a folder of its own, and a session with it."""
    def __init__(self, *services, **options):
        self.services, self.options, self.folder = services, options, tempfile.TemporaryDirectory()

    async def __aenter__(self):
        if not BEAM:
            self.folder.cleanup()
            raise Skip("no beam program was given")
        path = pathlib.Path(self.folder.name)
        (path / "files").mkdir()
        (path / "files" / "hello.txt").write_bytes(b"hello, file\n")
        services = [s.replace("DIR", str(path / "files")) for s in self.services]
        self.program = subprocess.Popen([BEAM, "serve", *services, "--listen", f"unix:{path / 's'}"])
        while True:
            try:
                self.session = beam.connect(str(path / "s"), **self.options)
                return self.session
            except (FileNotFoundError, ConnectionRefusedError):
                if self.program.poll() is not None:
                    raise AssertionError(f"beam serve ended with {self.program.returncode}") from None
                await asyncio.sleep(0.01)

    async def __aexit__(self, *_):
        await self.session.close()
        self.program.terminate()
        try:
            self.program.wait(5)
        except subprocess.TimeoutExpired:
            self.program.kill()
            self.program.wait()
        self.folder.cleanup()


@case
async def c_echo():
    async with Served("echo") as s:
        for size in (0, 5, 65_504, 65_505, 1 << 20, 5 << 20):
            body = os.urandom(size)
            answer = await s.call("echo", {"text": "hi", "n": size}, body)
            same((answer.meta, answer.body == body), ({"text": "hi", "n": size}, True), f"echo of {size}")
        await s.ping()
        await fails(s.call("nobody serves this"), NOT_FOUND)


@case
async def c_echo_of_attached_channels():
    async with Served("echo") as s:
        stream, talk, inner = s.channel(mode=BYTES), s.channel(), s.channel(mode=BYTES)
        same((await s.call("echo", {"n": 1}, attached=[stream, talk])).meta, {"n": 1})

        data, got = os.urandom(1 << 20), b""            # far more than a window, read while it is written
        writing = asyncio.create_task(stream.send(body=data, end=True))
        while piece := await stream.recv():
            got += piece.body
        await writing
        same(got == data, True)

        for n in range(3):
            await talk.send({"n": n}, bytes(n * 40_000))
            answer = await talk.recv()
            same((answer.meta, len(answer.body)), ({"n": n}, n * 40_000))
        await talk.send({"nested": True}, attached=[inner])
        same((await talk.recv()).meta, {"nested": True})
        await inner.send(body=b"there and back", end=True)
        same((await inner.recv()).body, b"there and back")
        same(await inner.recv(), None)
        talk.end()
        same(await talk.recv(), None)
        await s.ping()
        same(s.channels, {})


@case
async def c_file():
    async with Served("file:DIR") as s:
        answer = await s.call("file", {"path": "hello.txt"})
        same((answer.meta["size"], len(answer.fds)), (12, 1))
        same(read_all(answer.fds[0]), b"hello, file\n")
        for wrong in "missing", "../s":
            try:
                await s.call("file", {"path": wrong})
                raise AssertionError(f"{wrong} was opened")
            except beam.BeamError as error:
                same(error.code in (NOT_FOUND, INVALID_ARGUMENT, PERMISSION_DENIED), True, f"code {error.code} for {wrong}")


@case
async def c_reverse():
    async def shout(message):
        return {"depth": message.channel.depth, **message.meta}, message.body.upper()

    async with Served("reverse", services={"shout": shout}) as s:
        answer = await s.call("reverse", {"service": "shout", "n": 7}, b"louder")
        same((answer.meta, answer.body), ({"n": 7, "depth": 1}, b"LOUDER"))
        await fails(s.call("reverse", {"service": "nobody"}), NOT_FOUND)


@case
async def c_clock():
    async with Served("clock") as s:
        channel, got = s.channel("clock", timeout=10), []
        await channel.send({"rate": 1000, "count": 50}, end=True)
        while message := await channel.recv():
            got.append(message.meta)
        same([sorted(meta) for meta in got], [["n", "ns"]] * 50)
        first = got[0]["n"]
        same([meta["n"] - first for meta in got], list(range(50)), "n")
        same(sorted(meta["ns"] for meta in got), [meta["ns"] for meta in got], "ns")


@case
async def c_everything_at_once():
    async def shout(message):
        return message.meta, message.body.upper()

    async with Served("echo", "file:DIR", "reverse", "clock", services={"shout": shout}) as s:
        answers = await asyncio.gather(
            *(s.call("echo", {"n": n}, bytes(n * 1000)) for n in range(100)),
            *(s.call("reverse", {"service": "shout", "n": n}, b"x" * n * 1000) for n in range(100)))
        same([a.meta["n"] for a in answers], [*range(100), *range(100)])
        for _ in range(100):
            for fd in (await s.call("file", {"path": "hello.txt"})).fds:
                os.close(fd)


def main():
    passed = failed = skipped = 0
    for function in CASES:
        name, before = function.__name__, os.listdir("/proc/self/fd")

        async def bounded():
            async with asyncio.timeout(SECONDS):
                return await function()
        try:
            note = asyncio.run(bounded())
            same(os.listdir("/proc/self/fd"), before, "fds open")
            passed += 1
            print(f"ok    {name}" + (f" ({note})" if note else ""), flush=True)
        except Skip as reason:
            skipped += 1
            print(f"skip  {name}: {reason}", flush=True)
        except Exception as error:
            failed += 1
            print(f"FAIL  {name}: {type(error).__name__}: {error}", flush=True)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
