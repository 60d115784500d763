"""One end of a channel, and the messages on it; docs/spec/session.md, 4 to 6. Used through session.py."""
import asyncio, collections, dataclasses, os
import kv
from . import wire
from .wire import *

QUEUE = 8       # packets that wait for the carrier before a message may start; later frames wait until there are none


class BeamError(Exception):
    """How a channel ended: a status code, words for people, all that the peer said."""
    def __init__(self, code, message="", details=None):
        self.code, self.details = code if code <= UNAUTHENTICATED else UNKNOWN, details or {}
        self.message = message or str(self.details.get("message", ""))
        super().__init__(f"{self.message} (code {self.code})")


@dataclasses.dataclass
class Message:
    channel: "Channel"
    meta: dict
    body: bytes
    fds: list
    attached: list      # of Channels
    codec: int
    cost: int           # in credit
    total: int          # what the body will be long
    charged: int        # to the session's budget


class Channel:
    """It opens with its opener's first send, or when it is attached to a message that is sent."""
    def __init__(self, session, name=None, mode=MESSAGES, oneway=False, deadline=None, depth=0, id=None):
        self.session, self.name, self.mode, self.oneway = session, name, mode, oneway
        self.deadline, self.depth, self.id = deadline, depth, id
        self.mine, self.gone, self.task = id is None, False, None
        self.sends, self.receives = self.mine or not oneway, not (self.mine and oneway)     # directions not ended
        self.status = None                                  # BeamError, perhaps OK: how the peer's direction ended
        self.inbox, self.partial, self.current = collections.deque(), None, None
        self.credit, self.theirs, self.owed = 0, session.limits["window"], 0        # to send; the peer's; due to it

    async def send(self, meta=None, body=b"", fds=(), attached=(), end=False, codec=0):
        """Send a message, or in byte mode these bytes; with end, our direction ends. The fds stay the caller's."""
        if self.mode == BYTES:
            return await self.write(body, end)
        s, opening, packed = self.session, self.id is None, b"" if meta is None else kv.encode(meta)
        if not isinstance(meta or {}, dict) or len(packed) > METADATA or len(meta or ()) > KEYS:
            raise BeamError(INVALID_ARGUMENT, "metadata is a map of at most 64 keys and 16 384 bytes")
        if len(fds) > FDS or len(attached) > ATTACHED or len((self.name or "").encode()) > 255:
            raise BeamError(INVALID_ARGUMENT, "more fds or channels than a message may have, or too long a name")
        room = ROOM - len(wire.head((0, 0, self.name) if opening else None, None, [(0, 0)] * len(attached), 0, packed))
        large = len(body) > room
        await self.start(len(packed) + len(body), len(fds), opening + len(attached), large)
        for channel in [self] * opening + list(attached):
            s.last_mine += 2
            s.adopt(channel, s.last_mine)
        left = max(1, int((self.deadline - s.loop.time()) * 1e9)) if self.deadline else 0
        head = wire.head((left, self.depth, self.name) if opening else None, len(body) if large else None,
                         [(channel.id, channel.mode) for channel in attached], codec, packed)
        at = room - 8 if large else len(body)               # how much of the body the first frame takes
        flags = opening * (OPEN | self.oneway * ONEWAY) | (MORE if large else end * LAST)
        s.push(wire.frame(self.id, MSG, head + body[:at], flags, len(fds), len(attached)), map(os.dup, fds), opening and self)
        if large:
            await self.send_rest(body, at, end)
        self.ended(ours=end)

    async def send_rest(self, body, at, end):
        """The later frames of a message. Those of other channels go between them."""
        self.session.large = self
        try:
            for at in range(at, len(body), ROOM):
                await self.session.wait(lambda: self.gone or not self.session.out)
                if self.gone:
                    raise self.failure()
                flags = end * LAST if at + ROOM >= len(body) else MORE
                self.session.push(wire.frame(self.id, MSG, body[at:at + ROOM], flags))
        except BaseException:
            self.abort(CANCELLED, "the message was not completed")
            raise
        finally:
            self.session.large = None

    async def write(self, data, end):
        for at in range(0, len(data), ROOM):
            await self.start(len(data[at:at + ROOM]))
            self.session.push(wire.frame(self.id, MSG, data[at:at + ROOM]))
        if end:
            self.end()

    async def start(self, size, fds=0, channels=0, large=False):
        """Wait until a message may start, and pay for it. One large message at a time is less than the rules allow."""
        s, opening = self.session, self.id is None

        def shut():
            return s.lost or self.gone or not self.sends or opening and (s.refused_above is not None or not self.name)

        def ready():
            return (s.peer and len(s.out) < QUEUE
                    and s.large is not self and not (large and s.large)                         # W5
                    and (opening or self.credit > 0)                                            # W3
                    and (not channels or s.opened(True) + channels <= s.peer["channels"])       # W6
                    and (fds <= s.fd_credit or s.peer["fds"] is None))                          # W7

        await s.wait(lambda: shut() or ready())
        if shut():
            raise self.failure()
        if size > s.peer["message"] and self.mode == MESSAGES or fds and s.peer["fds"] is None:
            raise BeamError(RESOURCE_EXHAUSTED, "the peer takes no message this long, or no fds")
        self.credit, s.fd_credit = self.credit - size - 64, s.fd_credit - fds

    def failure(self):
        if self.status and self.status.code:
            return self.status
        return BeamError(FAILED_PRECONDITION if self.id else UNAVAILABLE, "nothing can be sent here any more")

    async def recv(self):
        """The next message; None after a good end; a bad one raises. The message before has now been dealt with."""
        self.done()
        await self.session.wait(lambda: self.inbox or self.status)
        if self.inbox:
            self.current = self.inbox.popleft()
            self.session.fds_back(len(self.current.fds))
            return self.current
        if not self.status or self.status.code:
            raise self.failure()

    def done(self):
        """The last message has been dealt with: what it cost goes back to the peer, once enough is due (W4)."""
        if self.current:
            self.session.budget += self.current.charged
            self.owed, self.current = self.owed + self.current.cost, None
        self.refund()

    def refund(self):
        if self.owed and self.receives and (self.owed * 2 >= self.session.limits["window"] or self.theirs <= 0):
            self.session.push(wire.credit(self.id, self.owed))
            self.theirs, self.owed = self.theirs + self.owed, 0

    def end(self, code=OK, message="", details=None):
        """End our direction, if it has not ended."""
        if self.session.large is self:
            self.abort(code or CANCELLED, message)          # a direction cannot end within a message
        elif self.sends and not self.gone and self.id is not None:
            self.session.push(wire.end(self.id, code, message, 0, details))
            self.ended(ours=True)

    def abort(self, code=CANCELLED, message="", details=None):
        """End both directions, if the channel is not gone, and drop what has come."""
        if not self.gone and self.id is not None:
            self.session.push(wire.end(self.id, code, message, ABORT, details))
            self.ended(True, True, BeamError(code, message))
        while self.inbox:
            self.session.discard(self.inbox.popleft())

    def ended(self, ours=False, theirs=False, status=None):
        """Note which directions have ended; when both have, the channel is gone."""
        s, self.sends, self.receives = self.session, self.sends and not ours, self.receives and not theirs
        self.status = self.status or status
        if theirs and self.mine and self.name:
            self.end()                                      # C3; nothing to do when it has ended
        if not self.sends and not self.receives and not self.gone:
            self.gone = True
            del s.channels[self.id]
            if self.partial:
                s.discard(self.partial)
            if status and status.code and self.task and self.task is not asyncio.current_task(s.loop):
                self.task.cancel()                          # nobody waits for its answer
            s.drain()
        s.poke()
