"""The frames of docs/spec/session.md: made and checked one by one, without any state. session.py puts them in motion."""
import collections, struct
import kv

(OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED,
 RESOURCE_EXHAUSTED, FAILED_PRECONDITION, ABORTED, OUT_OF_RANGE, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS,
 UNAUTHENTICATED) = range(17)
HELLO, MSG, END, CREDIT, PING, GOAWAY = range(1, 7)
OPEN, MORE, LAST, ONEWAY = 1, 2, 4, 8           # flags of MSG; LAST is what the specification calls END
ABORT = ACK = 1                                 # the flag of END, of PING
MESSAGES, BYTES = 0, 1                          # modes of a channel
PACKET, ROOM, METADATA, KEYS, ATTACHED, FDS = 65536, 65520, 16384, 64, 64, 16
HEADER = struct.Struct("<QIBBBB")
#        flags, on a channel (None: any), payload from, to
RULES = {HELLO: (0, False, 8, ROOM), MSG: (15, True, 0, ROOM), END: (1, True, 8, ROOM), CREDIT: (0, None, 8, 8),
         PING: (1, False, 8, 8), GOAWAY: (0, False, 16, ROOM)}
#        in HELLO: if absent, least, most
LIMITS = {"version": (0, 1, 2**63 - 1), "window": (16384, 16384, 2**31 - 1), "channels": (16, 1, 2**31 - 1),
          "message": (65536, 1, 2**31 - 1), "fds": (None, 0, 2**31 - 1), "ping": (None, 1, 3600)}
EXHAUSTED = {"TOO_MANY_CHANNELS", "FLOW_CONTROL", "CREDIT_OVERFLOW", "FRAME_OVERSIZED", "TOO_MANY_ABORTS"}

Frame = collections.namedtuple("Frame", "id kind flags fds attached content")
Head = collections.namedtuple("Head", "deadline depth name total attached codec meta_len meta cost body")


class Violation(Exception):
    """A session error, by its name."""
    def code(self):
        return RESOURCE_EXHAUSTED if str(self) in EXHAUSTED else INVALID_ARGUMENT


def require(good, error):
    if not good:
        raise Violation(error)


def frame(id, kind, payload=b"", flags=0, fds=0, attached=0):
    return HEADER.pack(id, len(payload), kind, flags, fds, attached) + payload + bytes(-len(payload) % 8)


def hello(role, name, limits):
    return frame(0, HELLO, kv.encode({"version": 1, "role": role, "name": name, **limits}))


def end(id, code, message="", flags=0, details=None):
    details = {"message": message, **(details or {})} if message or details else None
    return frame(id, END, struct.pack("<II", code, 0) + (kv.encode(details) if details else b""), flags)


def credit(id, amount):
    return frame(id, CREDIT, struct.pack("<Q", amount))


def ping(token, flags=0):
    return frame(0, PING, struct.pack("<Q", token), flags)


def goaway(last, code=OK, details=None):
    return frame(0, GOAWAY, struct.pack("<QII", last, code, 0) + (kv.encode(details) if details else b""))


def head(opening, total, channels, codec, meta):
    """The first frame's payload up to the body. opening: None or (deadline, depth, name); total: None if it is all."""
    parts = []
    if opening:
        name = opening[2].encode()
        parts.append(struct.pack("<QHB5x", opening[0], len(name), opening[1]) + name + bytes(-len(name) % 8))
    if total is not None:
        parts.append(struct.pack("<Q", total))
    parts += (struct.pack("<QII", id, mode, 0) for id, mode in channels)
    return b"".join(parts) + struct.pack("<II", len(meta), codec) + meta


def parse(packet):
    """The frames of a packet, checked as far as one can without knowing their channels."""
    at = 0
    while at < len(packet):
        require(len(packet) - at >= 16, "FRAME_TRUNCATED")
        id, length, kind, flags, fds, attached = HEADER.unpack_from(packet, at)
        start, stop, at = at + 16, at + 16 + length, at + 16 + (length + 7) // 8 * 8
        require(at - start + 16 <= PACKET, "FRAME_OVERSIZED")
        require(at <= len(packet), "FRAME_TRUNCATED")
        require(not any(packet[stop:at]), "FRAME_PADDING")
        payload = packet[start:stop]
        if kind < 0x80:
            require(kind in RULES, "FRAME_KIND")
            allowed, channel, least, most = RULES[kind]
            require(not flags & ~allowed, "FRAME_FLAGS")
            require(kind != MSG or not flags & MORE or not flags & LAST, "FRAME_FLAGS")
            require(kind != MSG or not flags & ONEWAY or flags & OPEN, "FRAME_FLAGS")
            require(channel is None or channel == (id > 0), "FRAME_CHANNEL")
            require(kind == MSG or not fds, "FRAME_FDS")
            require(kind == MSG or not attached, "FRAME_ATTACHMENT")
            require(least <= length <= most, "FRAME_LENGTH")
        yield Frame(id, kind, flags, fds, attached, CONTENT.get(kind, lambda raw: raw)(payload))


def parse_details(data):
    """The kv map in data, None when there is nothing."""
    try:
        value = kv.decode(data) if data else None
    except kv.KvError:
        raise Violation("FRAME_METADATA") from None
    require(not data or isinstance(value, dict) and len(data) <= METADATA, "FRAME_METADATA")
    return value


def parse_hello(payload):
    """The peer's HELLO, with a value for every key (None: no fds, ever)."""
    try:
        peer = kv.decode(payload)
        require(isinstance(peer, dict), "HELLO_MALFORMED")
    except kv.KvError:
        raise Violation("HELLO_MALFORMED") from None
    name = peer.setdefault("name", "")
    require(peer.get("role") in ("opener", "acceptor") and type(name) is str, "HELLO_MALFORMED")
    require(len(name.encode()) <= 255, "HELLO_MALFORMED")
    for key, (absent, least, most) in LIMITS.items():
        given, value = key in peer, peer.setdefault(key, absent)
        whole = type(value) is int or type(value) is float and value.is_integer()
        require(whole and least <= value <= most or not given and key != "version", "HELLO_MALFORMED")
        peer[key] = int(value) if whole else value
    return peer


def parse_end(payload):
    code, zero = struct.unpack_from("<II", payload)
    require(not zero, "FRAME_PADDING")
    return code, parse_details(payload[8:])


CONTENT = {HELLO: parse_hello, END: parse_end, CREDIT: lambda raw: struct.unpack("<Q", raw)[0], PING: lambda raw:
           struct.unpack("<Q", raw)[0], GOAWAY: lambda raw: (struct.unpack_from("<Q", raw)[0], *parse_end(raw[8:]))}


def parse_head(frame):
    """What the first frame of a message holds."""
    payload, flags, at = frame.content, frame.flags, 0

    def take(form, error="FRAME_LENGTH"):
        nonlocal at
        at += struct.calcsize(form)
        require(at <= len(payload), error)
        return struct.unpack_from(form, payload, at - struct.calcsize(form))

    deadline = depth = name = None
    if flags & OPEN:
        deadline, length, depth, zero = take("<QHB5s")
        require(not any(zero), "FRAME_PADDING")
        require(1 <= length <= 255, "FRAME_NAME")
        name, zero = take(f"<{length}s{-length % 8}s")
        require(not any(zero), "FRAME_PADDING")
        try:
            name = name.decode()
        except UnicodeDecodeError:
            raise Violation("FRAME_NAME") from None
    total = take("<Q")[0] if flags & MORE else None
    attached = parse_attached(payload[at:], frame.attached)
    at += 16 * frame.attached
    length, codec = take("<II")
    require(length <= METADATA, "FRAME_METADATA")
    meta = parse_details(take(f"<{length}s")[0])
    require(len(meta or ()) <= KEYS, "FRAME_METADATA")
    total = len(payload) - at if total is None else total
    require(len(payload) - at + bool(flags & MORE) <= total, "FRAGMENT")
    return Head(deadline, depth, name, total, attached, codec, length, meta, length + total + 64, payload[at:])


def parse_attached(data, count):
    require(count <= ATTACHED and len(data) >= 16 * count, "FRAME_ATTACHMENT")
    entries = list(struct.iter_unpack("<QII", data[:16 * count]))
    require(all(mode in (MESSAGES, BYTES) for _, mode, _ in entries), "FRAME_ATTACHMENT")
    require(not any(zero for _, _, zero in entries), "FRAME_PADDING")
    return [(id, mode) for id, mode, _ in entries]
