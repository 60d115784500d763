"""kv records and files, level 1, after docs/spec/kv.md: read_head(file), read(file, pos, epoch),
write(kind, rev, body, epoch), and File(file), which follows all records.
Sums are looked at where libxxhash is installed (SUMS); without it a damaged record passes for a good one."""
import collections, ctypes, ctypes.util, struct
import kv
from kv import check

HEAD, SNAP, LIVE, DELTA, MARK, EARLY, CLOSED = range(1, 8)
RECORD, DEL, GONE = 0x10, 0x0b, object()        # GONE: the value of a key that a delta deletes
TORN = ("KV_TRUNCATED", "KV_RECORD", "KV_SUM", "KV_TOO_LARGE", None)
SUMS = ctypes.util.find_library("xxhash")
if SUMS:
    xxh3 = ctypes.CDLL(SUMS).XXH3_64bits_withSeed
    xxh3.argtypes, xxh3.restype = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64), ctypes.c_uint64
Record = collections.namedtuple("Record", "kind rev body size")     # body: (key, value) pairs; of a head: the epoch

class Damage(kv.KvError): "A whole record that is wrong inside: no torn tail (R17)."

def read_body(body, kind):
    """The entries, in order; a del is checked as the nil it would be."""
    entries, pos, last = [], 0, None
    while pos < len(body):
        gone = kind == DELTA and len(body) - pos >= 8 and body[pos + 6] == DEL
        value, last, pos = kv.read(body[:pos + 6] + bytes([kv.NIL]) + body[pos + 7:] if gone else body,
                                   pos, len(body), 2, kv.MAP, last)
        entries.append((last.decode(), GONE if gone else value))
    return entries

def record_at(file, pos, seed):
    check(len(file) - pos >= 8, "TRUNCATED")
    vlen, klen, kind_of_entry, kind = struct.unpack_from("<IHBB", file, pos)
    check(kind_of_entry == RECORD and klen == 0 and vlen >= 16 and vlen % 8 == 0, "RECORD")
    check(8 + vlen <= kv.MAX_SIZE, "TOO_LARGE")
    check(8 + vlen <= len(file) - pos, "TRUNCATED")
    (rev,), (total,) = struct.unpack_from("<Q", file, pos + 8), struct.unpack_from("<Q", file, pos + vlen)
    check(not SUMS or xxh3(file[pos:pos + vlen], vlen, seed) == total, "SUM")
    check(rev < 2**63, "FORMAT")
    return Record(kind, rev, file[pos + 16:pos + vlen], 8 + vlen)

def read(file, pos, epoch):
    """The record at pos, or None where there are no more."""
    if pos == len(file) or file[pos:pos + 8] == bytes(8): return None
    record = record_at(file, pos, epoch)
    check(HEAD <= record.kind <= CLOSED and (not record.body or record.kind in (HEAD, SNAP, DELTA)), "FORMAT")
    try: return record._replace(body=read_body(record.body, record.kind) if record.kind in (SNAP, DELTA) else [])
    except UnicodeDecodeError: raise Damage("KV_UTF8") from None
    except kv.KvError as error: raise Damage(str(error)) from None

def read_head(file):
    check(len(file) >= 8 and file[7] == HEAD, "FORMAT")
    try: record = record_at(file, 0, 0)
    except kv.KvError as error: raise error if str(error) in ("KV_SUM", "KV_TRUNCATED") else kv.KvError("KV_FORMAT")
    epoch = record.body[8:16]
    check(any(epoch) and record.body == kv.encode({"epoch": epoch, "format": 1})[8:], "FORMAT")
    return record._replace(body=int.from_bytes(epoch, "little"))

def write(kind, rev, body, epoch):
    """The bytes of a record; needs sums. The body as read() has it, in the order of the keys; a head's is its epoch."""
    data = b""
    for key, value in body if kind != HEAD else ():
        entry = kv.encode(None if value is GONE else value, kv.utf8(key), 2)
        data += entry[:6] + bytes([DEL]) + entry[7:] if value is GONE else entry
    if kind == HEAD: data, epoch = kv.encode({"epoch": body.to_bytes(8, "little"), "format": 1})[8:], 0
    record = struct.pack("<IHBBQ", 16 + len(data), 0, RECORD, kind, rev) + data
    return record + struct.pack("<Q", xxh3(record, len(record), epoch))

class File:
    """What a file says, up to the place `end` where its records stop, and why they do (None: zeros, or no more)."""
    def __init__(self, file):
        self.end, self.stop, self.live, self.clean, self.early, self.state = 0, None, False, False, False, {}
        whole = False
        try:
            head = read_head(file)
            self.epoch, self.rev, self.durable, self.end = head.body, head.rev, head.rev, head.size
            while record := read(file, self.end, self.epoch): self.take(record)
        except kv.KvError as error: self.stop, whole = str(error), isinstance(error, Damage)
        newer = self.stop == "KV_FORMAT"
        self.error = None if self.live else "KV_FORMAT" if newer else "KV_CORRUPT"      # for who reads (R12)
        torn = self.live and not whole and self.stop in TORN and not self.mark_behind(file)
        self.open = None if torn else "KV_FORMAT" if newer else "KV_CORRUPT"            # for who writes (R17)
        self.cut = self.end if torn and any(file[self.end:]) else None
        self.new_epoch = torn and self.early

    def take(self, record):
        kind, rev, same = record.kind, record.rev, record.rev == self.rev
        early = not self.live and same
        may_come = {HEAD: False, SNAP: early, LIVE: early, DELTA: rev == self.rev + 1,
                    MARK: self.live and self.durable <= rev <= self.rev}
        check(may_come.get(kind, self.live and same), "SEQUENCE")
        for key, value in record.body if kind in (SNAP, DELTA) else (): self.state[key] = value
        self.state = {key: value for key, value in self.state.items() if value is not GONE}
        self.rev, self.live, self.clean = max(self.rev, rev), self.live or kind == LIVE, kind == CLOSED
        self.durable = rev if kind >= MARK or kind == LIVE else self.durable
        self.early = kind == EARLY or (self.early and kind != CLOSED)
        self.end += record.size

    def mark_behind(self, file):
        for pos in range(self.end, len(file) - 23, 8):
            try: record = read(file, pos, self.epoch)
            except kv.KvError: continue
            if record and record.kind >= MARK and record.rev > self.rev: return True
        return False
