"""Beam sessions over unix sockets for asyncio, after docs/spec/session.md: what an application uses.

    s = session.connect("/run/x")                           s = await session.accept(listen("/run/x"), {"echo": f})
    m = await s.call("echo", {"text": "hi"}, b"body")       async def f(message): return metadata, body, fds
    await s.event("tick", {"n": 1})                         accept(..., events={"tick": g}): await g(message) for each

Both ends are a Session, and serve as well as call. Each request served, and each stream of events, is a task of its own,
so a handler may call back on the session it serves. What a message cost goes back to the peer when its channel is read
again or its handler returns. The fds of a message are its receiver's; those a handler gets or returns are closed for it.
"""
import asyncio, collections, itertools, socket
from . import wire
from .carrier import Carrier, close_all, listen, unix_socket
from .channel import BeamError, Channel, Message
from .wire import *

BUDGET = 32 << 20       # of bodies announced in messages of several frames, until these have been dealt with


class Session(Carrier):
    """A session over a connected socket, or over none: then receive() and `out` are the carrier."""
    def __init__(self, sock, role, services=None, events=None, name="python", **limits):
        super().__init__(sock)
        self.role, self.services, self.events, self.tokens = role, services or {}, events or {}, itertools.count(1)
        self.limits = {"window": 65536, "channels": 1024, "message": 16 << 20, "fds": 64} | limits
        self.channels, self.streams, self.tasks, self.pong = {}, {}, set(), 0
        self.last_mine, self.last_theirs = -1 if role == "opener" else 0, 0
        self.peer, self.failed = None, None                             # its HELLO; a session error
        self.refuse_above, self.refused_above = None, None              # GOAWAY sent; GOAWAY received
        self.fd_credit, self.fd_theirs, self.budget = 0, self.limits["fds"], BUDGET
        self.aborts, self.aborted_at = 0, 0
        self.large = None                                               # the channel that sends a message of several frames
        self.push(wire.hello(role, name, self.limits))

    def channel(self, name=None, mode=MESSAGES, oneway=False, timeout=None, parent=None):
        """A channel to open: by a first send to a service, perhaps on behalf of the channel `parent`; or to attach."""
        times = [self.loop.time() + timeout if timeout else None, parent.deadline if parent else None]
        until = min(filter(None, times), default=None)
        return Channel(self, name, mode, oneway, until, parent.depth + 1 if parent else 0)

    async def call(self, name, *message, timeout=30, parent=None, **more):
        """A request: the message that answers it, None if it ended well without one."""
        channel = self.channel(name, timeout=timeout, parent=parent)
        try:
            async with asyncio.timeout_at(channel.deadline):
                await channel.send(*message, end=True, **more)
                answer = await channel.recv()
                while extra := answer and await channel.recv():
                    close_all(extra.fds)
                return answer
        except TimeoutError:
            channel.abort(DEADLINE_EXCEEDED)
            raise BeamError(DEADLINE_EXCEEDED, "no answer in time") from None
        finally:
            channel.abort()                                 # nothing to do, unless this task is being cancelled

    async def event(self, name, *message, **more):
        if name not in self.streams or self.streams[name].gone:
            self.streams[name] = self.channel(name, oneway=True)
        await self.streams[name].send(*message, **more)

    async def ping(self):
        token = next(self.tokens)
        self.push(wire.ping(token))
        await self.wait(lambda: self.pong >= token)     # one answer may stand for several

    def goaway(self):
        """Finish what has been opened, serve no more; the session closes when no channel is left."""
        self.refuse_above = self.last_theirs
        self.push(wire.goaway(self.last_theirs))
        self.drain(goaway=True)

    async def close(self):
        self.closing = True
        self.flush()
        await self.wait(lambda: False)

    async def serve(self, channel, handler):
        message, answer, fail = None, (), channel.abort if channel.oneway else channel.end
        try:
            async with asyncio.timeout_at(channel.deadline):
                while message := await channel.recv():
                    answer = await handler(message)
                    if not channel.oneway:
                        break
                    close_all(message.fds)
                answer = answer if isinstance(answer, tuple) else () if answer is None else (answer,)
                if answer and channel.sends:
                    await channel.send(*answer, end=True)
                channel.end()
        except TimeoutError:
            channel.abort(DEADLINE_EXCEEDED, "the deadline has passed")
        except BeamError as error:
            fail(error.code or UNKNOWN, error.message, error.details)
        except Exception as error:
            fail(INTERNAL, repr(error))
        finally:
            close_all({*(message.fds if message else ()), *(answer[2] if len(answer or ()) > 2 else ())})
            channel.done()

    # What comes

    def receive(self, packet, fds=(), truncated=False):
        """Take in a packet. A Violation is for lose()."""
        fds = collections.deque(fds)
        try:
            for frame in wire.parse(packet):
                require(self.peer or frame.kind == HELLO, "HELLO_MISSING")
                require(truncated or len(fds) >= frame.fds, "FRAME_FDS")
                self.fd_theirs -= frame.fds
                require(self.fd_theirs >= 0, "FLOW_CONTROL")
                came = [fds.popleft() for _ in range(min(frame.fds, len(fds)))]
                self.fds_back(frame.fds - len(came))        # for those that our table had no room for
                try:
                    self.take(frame, came)
                except Violation:
                    close_all(came)
                    raise
            require(not fds, "FRAME_FDS")
        finally:
            close_all(fds)

    def take(self, frame, fds):
        id, kind, flags, content = frame.id, frame.kind, frame.flags, frame.content
        channel, now = self.channels.get(id), self.loop.time()
        if kind == MSG and channel and (channel.partial or channel.mode == BYTES):
            return self.more(channel, frame)
        if kind == MSG and (channel or flags & OPEN):
            return self.message(channel, frame, fds)
        self.drop(fds)
        if kind == HELLO:
            require(self.peer is None, "HELLO_REPEATED")
            require(content["role"] != self.role, "HELLO_ROLE")
            self.peer, self.fd_credit = content, content["fds"] or 0
        elif kind == PING and flags & ACK:
            self.pong = max(self.pong, content)
        elif kind == PING:
            self.push(wire.ping(content, ACK))
        elif kind == GOAWAY:
            self.refused_above, code, details = content
            self.failed = (details or {}).get("error", code) if code else None
            self.drain(goaway=True)
        elif kind == CREDIT and id == 0:
            self.fd_credit += content
            require(self.fd_credit <= 2**62, "CREDIT_OVERFLOW")
        elif channel is None and kind < 0x80:               # M3: gone, or never opened
            require(id <= (self.last_mine if self.is_mine(id) else self.last_theirs), "FRAME_CHANNEL")
            for other, mode in wire.parse_attached(content[8 if flags & MORE else 0:], frame.attached) if kind == MSG else ():
                self.adopt(Channel(self, mode=mode, id=other), other).abort()
        elif kind == CREDIT:
            channel.credit += content
            require(channel.credit <= 2**62, "CREDIT_OVERFLOW")
        elif kind == END and flags & ABORT:
            if not channel.mine and not (channel.deadline and channel.deadline < now):      # C6
                self.aborts, self.aborted_at = max(0, self.aborts - 100 * (now - self.aborted_at)) + 1, now
                require(self.aborts <= 200, "TOO_MANY_ABORTS")
            channel.ended(True, True, BeamError(content[0] or CANCELLED, "", content[1]))
        elif kind == END:
            require(channel.receives, "FRAME_CHANNEL")
            require(not channel.partial, "FRAGMENT")
            channel.ended(theirs=True, status=BeamError(content[0], "", content[1]))
        self.poke()

    def message(self, channel, frame, fds):
        """The first frame of a message, perhaps all of it."""
        head, opening, large = wire.parse_head(frame), frame.flags & OPEN, frame.flags & MORE
        if opening:
            until = self.loop.time() + head.deadline / 1e9 if head.deadline else None
            channel = Channel(self, head.name, MESSAGES, bool(frame.flags & ONEWAY), until, head.depth, frame.id)
            self.adopt(channel, frame.id)
        self.pay(channel, head.cost)
        attached = [self.adopt(Channel(self, mode=mode, id=id), id) for id, mode in head.attached]
        message = Message(channel, head.meta or {}, bytearray(head.body), fds, attached, head.codec, head.cost, head.total,
                          head.total if large else 0)
        self.budget -= message.charged
        handler = (self.events if channel.oneway else self.services).get(channel.name)
        for wrong, code, words in (
                (opening and not handler, NOT_FOUND, "no service of this name"),
                (opening and head.depth > 16, RESOURCE_EXHAUSTED, "requests are nested too deep"),
                (opening and self.refuse_above is not None, UNAVAILABLE, "the session is ending"),
                (head.cost - 64 > self.limits["message"], RESOURCE_EXHAUSTED, "the message is too long"),
                (len(fds) < frame.fds, RESOURCE_EXHAUSTED, "no room for the fds"),
                (self.budget < 0, RESOURCE_EXHAUSTED, "too many large messages at a time")):
            if wrong:
                self.discard(message)
                return channel.abort(code, words)
        if opening:
            channel.task = self.loop.create_task(self.serve(channel, handler))
            self.tasks.add(channel.task)
            channel.task.add_done_callback(self.tasks.discard)
        channel.partial = message
        self.complete(channel, frame.flags)

    def more(self, channel, frame):
        """A later frame of a message, or bytes in byte mode."""
        message, flags = channel.partial, frame.flags
        require(not flags & (OPEN | (MORE if channel.mode == BYTES else 0)), "FRAME_FLAGS")
        require(not frame.fds, "FRAME_FDS")
        require(not frame.attached, "FRAME_ATTACHMENT")
        if channel.mode == BYTES:
            cost = len(frame.content) + 64
            self.pay(channel, cost)
            channel.partial = Message(channel, {}, frame.content, [], [], 0, cost, 0, 0)
        else:
            message.body += frame.content
            short = len(message.body) < message.total
            require(frame.content and (short if flags & MORE else len(message.body) == message.total), "FRAGMENT")
        self.complete(channel, flags)

    def complete(self, channel, flags):
        if not flags & MORE:
            channel.partial.body = bytes(channel.partial.body)
            channel.inbox.append(channel.partial)
            channel.partial = None
            channel.ended(theirs=bool(flags & LAST), status=BeamError(OK) if flags & LAST else None)
        channel.refund()

    def pay(self, channel, cost):
        require(channel.receives, "FRAME_CHANNEL")
        require(channel.theirs > 0, "FLOW_CONTROL")
        channel.theirs -= cost

    def adopt(self, channel, id):
        """Put a channel on the list: one of ours that is being opened, or one of the peer's (M4, W6)."""
        if channel.mine:
            channel.id = id
        else:
            require(not self.is_mine(id) and id > self.last_theirs, "FRAME_CHANNEL")
            self.last_theirs = id
        channel.credit += self.peer["window"]
        self.channels[id] = channel
        require(channel.mine or self.opened(False) <= max(16, self.limits["channels"]), "TOO_MANY_CHANNELS")
        return channel

    def is_mine(self, id):
        return id % 2 == (self.role == "opener")

    def opened(self, mine):
        return sum(channel.mine == mine for channel in self.channels.values())

    def discard(self, message):
        self.drop(message.fds)
        self.budget += message.charged
        for channel in message.attached:
            channel.abort()

    def drop(self, fds):
        close_all(fds)
        self.fds_back(len(fds))

    def fds_back(self, count):
        if count:
            self.fd_theirs += count
            self.push(wire.credit(0, count))

    def drain(self, goaway=False):
        for stream in self.streams.values() if goaway else ():
            stream.end()
        self.closing |= not self.channels and (self.refuse_above is not None or self.refused_above is not None)     # P2
        self.flush()

    def lose(self, violation=None):
        """The carrier is gone, or we give it up: every channel ends (C4)."""
        unsent = {id(opens) for _, _, opens in self.out}
        while self.out:
            close_all(self.out.popleft()[1])
        if violation:
            self.failed = str(violation)
            self.push(wire.goaway(self.last_theirs, violation.code(), {"error": self.failed}))
        self.lost = self.closing = True
        for channel in list(self.channels.values()):
            refused = channel.mine and channel.name and channel.id > (2**64 if self.refused_above is None else self.refused_above)
            sure = id(channel) in unsent or refused
            channel.ended(True, True, BeamError(UNAVAILABLE if sure else UNKNOWN, "the session was lost"))
        if self.sock:
            self.loop.remove_reader(self.sock)
        self.flush()


def connect(path, services=None, events=None, **options):
    sock = unix_socket()
    sock.connect(path)
    return Session(sock, "opener", services, events, **options)


async def accept(listener, services=None, events=None, **options):
    sock, _ = await asyncio.get_running_loop().sock_accept(listener)
    return Session(sock, "acceptor", services, events, **options)
