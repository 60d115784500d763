"""A client for Beam sessions over a unix socket, after docs/spec/session.md. Synchronous, standard library only.
It trusts its peer more than the port in strict/ does: it checks what is cheap, but neither reserved fields, nor
the order of ids, nor the peer's use of credit. Attached channels are refused. It waits while the peer does not read.

    with Session.connect("/run/x") as s:
        s.serve("shout", lambda meta, body, fds: (meta, body.upper()))
        meta, body, fds = s.call("echo", {"text": "hi"}, b"body", timeout=5)

One thread: what waits also reads, and calls the handlers of what the peer asks for; these may call back. A deadline
that passes in a handler is seen when it returns. An answer's fds are the caller's; a handler's are closed for it.
"""
import array, collections, contextlib, os, select, socket, struct, time
import kv

OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND = range(6)
RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE, LAST_CODE = 8, 13, 14, 16
HELLO, MSG, END, CREDIT, PING, GOAWAY = range(1, 7)     # kinds of frames
OPEN, MORE, LAST, ONEWAY, ABORT, ACK = 1, 2, 4, 8, 1, 1 # flags of MSG (LAST is END in the specification), END, PING
HEADER = struct.Struct("<QIBBBB")                       # channel, length, kind, flags, fds, attached
PACKET, ROOM, CONTROL = 65536, 65520, 2048              # most bytes of a packet, a frame's payload, fds and credentials
OURS = {"version": 1, "role": "opener", "window": 65536, "channels": 64, "message": 16 << 20, "fds": 64}
ABSENT = {"window": 16384, "channels": 16, "message": 65536, "fds": 0}

class BeamError(Exception):                             # how a request ended: a status code, words for people
    def __init__(self, code, text="", details=None):
        super().__init__(f"{text} (code {code})")
        self.code, self.text, self.details = code if code <= LAST_CODE else UNKNOWN, text, details or {}

class Channel:
    """A conversation: one request with its answers, or the events of one name."""
    def __init__(self, name, mine, oneway, deadline=None, depth=0):
        self.name, self.mine, self.oneway, self.deadline, self.depth = name, mine, oneway, deadline, depth
        self.id, self.credit = None, 0                      # None until it is open; how much we may send
        self.sending, self.receiving = mine or not oneway, not mine or not oneway   # directions that have not ended
        self.status = None                                  # how the peer's ended: a BeamError, perhaps with code OK
        self.inbox = collections.deque()                    # answers: channel, meta, body, fds, cost in credit
        self.partial = None                                 # meta, body, fds, cost of one under way; its whole length

def require(good, error):
    if not good:
        raise ValueError(error)                             # a session error

class Session(contextlib.AbstractContextManager):
    def __init__(self, sock):                               # a connected SOCK_SEQPACKET socket with SO_PASSCRED set
        self.sock, self.lost, self.broken = sock, None, False       # lost: why; broken: it sends no more
        self.peer, self.identity = None, None                       # its HELLO; its pid, uid and gid
        self.whole = Channel("", False, False)                      # the session itself, whose credit is in fds
        self.channels, self.handlers, self.events = {0: self.whole}, {}, {}     # by id; by name; those of events
        self.todo, self.serving = collections.deque(), None         # what is to be served; on which channel we are
        self.last_mine, self.last_theirs, self.refused = -1, 0, False       # highest ids; the peer has sent GOAWAY
        self.refusal = NOT_FOUND, "no service of this name"
        self.push(0, HELLO, kv.encode(OURS))
        self.wait(lambda: self.peer)
        if self.lost:
            raise BeamError(UNAVAILABLE, self.lost)

    @classmethod
    def connect(cls, path):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        sock.connect(path)
        return cls(sock)

    def __exit__(self, *_):
        """Take no more requests, let those under way finish, hang up."""
        self.refusal = UNAVAILABLE, "the session is ending"
        self.push(0, GOAWAY, struct.pack("<QII", self.last_theirs, OK, 0))
        self.end_events()
        self.run(1, lambda: len(self.channels) == 1)
        self.lose("the session was closed")

    def call(self, service, meta=None, body=b"", fds=(), timeout=None):
        """Make a request: the (meta, body, fds) that answers it. The fds that are sent stay the caller's."""
        answers = list(self.stream(service, meta, body, fds, timeout)) or [({}, b"", [])]
        self.drop(fd for extra in answers[1:] for fd in extra[2])
        return answers[0]

    def stream(self, service, meta=None, body=b"", fds=(), timeout=None):
        """Make a request, when the first answer is asked for: each (meta, body, fds) that answers it."""
        until, outer = None if timeout is None else time.monotonic() + timeout, self.serving
        if outer and outer.deadline:                        # made on behalf of a request: its deadline is ours too
            until = min(outer.deadline, until or outer.deadline)
        channel = Channel(service, True, False, until, outer.depth + 1 if outer else 0)
        try:
            self.send(channel, meta, body, fds, LAST)
            while self.wait(lambda: channel.inbox or channel.status, until) and channel.inbox:
                _, *answer, cost = channel.inbox.popleft()
                self.give_back(0, len(answer[2]))
                yield tuple(answer)
                self.give_back(channel.id, cost)
            if channel.status.code:
                raise channel.status
        finally:                                            # nothing to do, unless time is up or the caller left
            self.abort(channel, DEADLINE_EXCEEDED if until and until <= time.monotonic() else CANCELLED)
            for _, _, _, late, _ in channel.inbox:
                self.drop(late, len(late))

    def event(self, name, meta=None, body=b"", fds=()):
        """Send an event. Nothing says that it arrived; when they are refused, later ones raise."""
        self.send(self.events.setdefault(name, Channel(name, True, True)), meta, body, fds)

    def serve(self, name, handler):
        """Let handler(meta, body, fds) -> None, meta, (meta, body) or (meta, body, fds) take what comes for name."""
        self.handlers[name] = handler

    def run(self, timeout=None, until=lambda: False):
        """Serve until the session ends, the time is up or until() holds."""
        with contextlib.suppress(BeamError):
            self.wait(until, None if timeout is None else time.monotonic() + timeout)

    def send(self, channel, meta=None, body=b"", fds=(), flags=0):  # opens a channel that has no id
        packed, name, opening = b"" if meta is None else kv.encode(meta), channel.name.encode(), not channel.id
        size, opens, head = len(packed) + len(body), b"", struct.pack("<II", len(packed), 0) + packed
        if len(packed) > 16384 or size > self.peer["message"] or len(fds) > min(16, self.peer["fds"]):
            raise BeamError(RESOURCE_EXHAUSTED, "the message is too long, or it has too many fds")
        def ready():
            opened = sum(other.mine for other in self.channels.values())
            free = self.refused or opened < self.peer["channels"] if opening else channel.credit > 0
            return channel.status or free and len(fds) <= self.whole.credit
        self.wait(ready, channel.deadline)
        if self.lost or opening and self.refused or not channel.sending:
            raise channel.status or BeamError(UNAVAILABLE, self.lost or "the peer takes no more requests")
        if opening:
            channel.id = self.last_mine = self.last_mine + 2
            channel.credit, self.channels[channel.id] = self.peer["window"], channel
            left = max(1, int((channel.deadline - time.monotonic()) * 1e9)) if channel.deadline else 0
            opens = struct.pack("<QHB5x", left, len(name), channel.depth) + name + bytes(-len(name) % 8)
            flags |= OPEN | ONEWAY * channel.oneway
        channel.credit -= size + 64
        self.whole.credit -= len(fds)
        at = len(body)                                      # where the next frame starts
        if len(opens + head) + at > ROOM:
            opens, at = opens + struct.pack("<Q", at), ROOM - len(opens + head) - 8
        first = flags if at == len(body) else flags & ~LAST | MORE
        if not self.push(channel.id, MSG, opens + head + body[:at], first, fds) and opening:
            channel.status = BeamError(UNAVAILABLE, "the session was lost")     # it has surely not run
        while at < len(body) and channel.id in self.channels:
            piece, at = body[at:at + ROOM], at + ROOM
            self.push(channel.id, MSG, piece, MORE if at < len(body) else flags & LAST)
        self.ended(channel, ours=flags & LAST)

    def abort(self, channel, code, text=""):                # ends both directions, unless they have ended
        if channel.id in self.channels:
            self.push(channel.id, END, struct.pack("<II", code, 0) + kv.encode({"message": text}), ABORT)
            self.ended(channel, True, True, BeamError(code, text))

    def end_events(self):
        for channel in filter(lambda channel: channel.sending, self.events.values()):
            self.push(channel.id, END, struct.pack("<II", OK, 0))
            self.ended(channel, ours=True)

    def give_back(self, id, amount):                        # credit: bytes of a channel, or fds on channel 0
        if amount and id in self.channels and self.channels[id].receiving:
            self.push(id, CREDIT, struct.pack("<Q", amount))

    def drop(self, fds, count=0):
        for fd in fds:
            os.close(fd)
        self.give_back(0, count)

    def push(self, id, kind, payload=b"", flags=0, fds=()):  # reads while the socket is full; False: lost
        frame = HEADER.pack(id, len(payload), kind, flags, len(fds), 0) + payload + bytes(-len(payload) % 8)
        while not self.lost and not self.broken:
            try:
                return socket.send_fds(self.sock, [frame], fds, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except BlockingIOError:
                self.pump(None, select.POLLIN | select.POLLOUT)
            except OSError:
                self.broken = True                          # what the peer has said before can still be read
        return False

    def wait(self, ready, deadline=None):                   # reads and serves until ready() or the end
        while not ready() and (self.todo or not self.lost):
            left = deadline and max(0, deadline - time.monotonic())
            if self.todo:
                self.answer(*self.todo.popleft())
            elif left == 0:
                raise BeamError(DEADLINE_EXCEEDED, "not done in time")
            else:
                self.pump(left)
        return True

    def pump(self, timeout, events=select.POLLIN):          # waits for the socket; reads a packet if there is one
        poll = select.poll()
        poll.register(self.sock, events)
        if any(event != select.POLLOUT for _, event in poll.poll(timeout and timeout * 1000 + 1)):
            self.read()

    def answer(self, channel, meta, body, fds, cost):       # calls a handler
        outer, self.serving, result = self.serving, channel, ()
        self.give_back(0, len(fds))
        try:
            if channel.sending or channel.oneway:           # else it was cancelled, or has had its answer
                result = self.handlers[channel.name](meta, body, fds)
                result = result if isinstance(result, tuple) else (result,)
                if channel.deadline and channel.deadline < time.monotonic():
                    raise BeamError(DEADLINE_EXCEEDED, "the deadline has passed")
                if channel.sending:
                    self.send(channel, *result, flags=LAST)
        except Exception as error:
            known = isinstance(error, BeamError)
            self.abort(channel, error.code if known else INTERNAL, error.text if known else repr(error))
        self.serving = outer
        self.drop({*fds, *(result[2] if len(result) > 2 else ())})
        self.give_back(channel.id, cost)

    def read(self):
        fds, at = [], 0
        try:
            packet, control, _, _ = self.sock.recvmsg(PACKET, CONTROL, socket.MSG_CMSG_CLOEXEC)
            if not packet:
                return self.lose("the peer has gone")
            control = {kind: data for _, kind, data in control}
            fds = list(array.array("i", control.get(socket.SCM_RIGHTS, b"")))
            self.identity = self.identity or struct.unpack("iII", control.get(socket.SCM_CREDENTIALS, b""))
            while at < len(packet):
                id, length, kind, flags, count, attached = HEADER.unpack_from(packet, at)
                payload, at = packet[at + 16:at + 16 + length], at + 16 + length + -length % 8
                require(at <= len(packet), "FRAME_TRUNCATED")
                came, fds = fds[:count], fds[count:]
                self.take(self.channels.get(id), id, kind, flags, payload, came, count, attached)
        except ConnectionResetError:
            pass                                            # what the peer had sent before can still be read
        except (ValueError, struct.error) as e:
            why = struct.pack("<II", INVALID_ARGUMENT, 0) + kv.encode({"error": str(e)})
            self.push(0, GOAWAY, struct.pack("<Q", self.last_theirs) + why)
            self.lose(str(e))

    def take(self, channel, id, kind, flags, payload, fds, count, attached):   # channel: None if gone, or new
        require(self.peer or kind == HELLO, "HELLO_MISSING")
        if kind == HELLO:
            hello = kv.decode(payload)
            require(hello.get("role") == "acceptor", "HELLO_ROLE")
            self.peer = {key: int(hello.get(key, absent)) for key, absent in ABSENT.items()}
            self.whole.credit = self.peer["fds"]
        elif kind == MSG:
            if channel and channel.partial:
                channel.partial[1].extend(payload)
            else:
                channel = self.begin(channel, id, flags, payload, fds, count, attached)
            if channel and not flags & MORE:
                meta, body, fds, cost, total = channel.partial
                require(len(body) == total, "FRAGMENT")
                channel.partial, whole = None, (channel, meta, bytes(body), fds, cost)
                (channel.inbox if channel.mine else self.todo).append(whole)
            if channel and flags & LAST:
                self.ended(channel, theirs=True, status=BeamError(OK))
        elif kind == PING and not flags & ACK:
            self.push(0, PING, payload, ACK)
        elif kind == GOAWAY:
            self.refused = True
            self.end_events()
        elif kind == CREDIT and channel:
            channel.credit += struct.unpack("<Q", payload)[0]
        elif kind == END and channel:
            code, details = struct.unpack_from("<I", payload)[0], kv.decode(payload[8:]) if payload[8:] else {}
            code = code or (CANCELLED if flags & ABORT else OK)
            self.ended(channel, flags & ABORT, True, BeamError(code, details.get("message", ""), details))
        else:
            require(kind <= GOAWAY or kind >= 0x80, "FRAME_KIND")
            self.drop(fds, count)

    def begin(self, channel, id, flags, payload, fds, count, attached):  # the first frame of a message
        at = 0
        if flags & OPEN:
            left, length, depth = struct.unpack_from("<QHB", payload)
            until, at = time.monotonic() + left / 1e9 if left else None, 16 + length + -length % 8
            channel = Channel(payload[16:16 + length].decode(), False, bool(flags & ONEWAY), until, depth)
            channel.id = self.last_theirs = id
            channel.credit, self.channels[id] = self.peer["window"], channel
        if flags & MORE:
            announced, at = payload[at:at + 8], at + 8
        for _ in range(attached):
            self.push(struct.unpack_from("<Q", payload, at)[0], END, struct.pack("<II", CANCELLED, 0), ABORT)
            at += 16
        if channel:
            length, at = struct.unpack_from("<I", payload, at)[0], at + 8
            meta, body = kv.decode(payload[at:at + length]) if length else {}, bytearray(payload[at + length:])
            total = int.from_bytes(announced, "little") if flags & MORE else len(body)
            if flags & OPEN and (channel.name not in self.handlers or self.refusal[0] == UNAVAILABLE):
                self.abort(channel, *self.refusal)
            elif channel.depth > 16 and flags & OPEN or length + total > OURS["message"] or len(fds) < count:
                self.abort(channel, RESOURCE_EXHAUSTED, "nested too deep, too long, or no room for the fds")
            else:
                channel.partial = meta, body, fds, length + total + 64, total
                return channel
        self.drop(fds, count)

    def ended(self, channel, ours=False, theirs=False, status=None):  # directions; when both have, it is gone
        channel.sending, channel.receiving = channel.sending and not ours, channel.receiving and not theirs
        channel.status = channel.status or status
        if not channel.sending and not channel.receiving:
            if self.channels.pop(channel.id, None) and channel.partial:
                self.drop(channel.partial[2], len(channel.partial[2]))

    def lose(self, why):                                    # what has not ended may have run, or not
        self.lost = self.lost or why
        for channel in list(self.channels.values()):
            self.ended(channel, True, True, BeamError(UNKNOWN, why))
        self.sock.close()
