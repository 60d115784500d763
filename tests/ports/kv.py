"""kv documents, level 0, after docs/spec/kv.md: encode(value) -> bytes, decode(bytes) -> value.
nil, false/true, int/uint, float, str, bytes, map, list are None, bool, int, float, str, bytes, dict, list."""
import struct

NIL, FALSE, TRUE, INT, UINT, FLOAT, STR, BYTES, MAP, LIST = range(1, 11)
VLEN = {NIL: 0, FALSE: 0, TRUE: 0, INT: 8, UINT: 8, FLOAT: 8}
MAX_SIZE, MAX_DEPTH, MAX_KEY = 2**31 - 8, 32, 65535
NAN = bytes.fromhex("000000000000f87f")

class KvError(ValueError): "What is wrong with a document, by the specification's name."
def check(good, error):
    if not good: raise KvError("KV_" + error)
def utf8(text): return check(not any("\ud800" <= c < "\ue000" for c in text), "UTF8") or text.encode()

def encode(value, key=b"", depth=1):
    check(depth <= MAX_DEPTH, "DEPTH")
    if value is None or isinstance(value, bool): kind, data = NIL if value is None else FALSE + value, b""
    elif isinstance(value, int):
        check(-2**63 <= value < 2**64, "NUMBER")
        kind, data = UINT if value >= 2**63 else INT, (value % 2**64).to_bytes(8, "little")
    elif isinstance(value, float): kind, data = FLOAT, struct.pack("<d", value) if value == value else NAN
    elif isinstance(value, str): kind, data = STR, utf8(value)
    elif isinstance(value, (bytes, bytearray, memoryview)): kind, data = BYTES, bytes(value)
    elif isinstance(value, dict):
        names = sorted((utf8(name), name) for name in value)
        kind, data = MAP, b"".join(encode(value[name], raw, depth + 1) for raw, name in names)
    else: kind, data = LIST, b"".join(encode(inner, b"", depth + 1) for inner in value)
    check(len(key) <= MAX_KEY and len(data) + len(key) <= MAX_SIZE - 8, "TOO_LARGE")
    return struct.pack("<IHBB", len(data), len(key), kind, 0) + data + key + bytes(-len(data + key) % 8)

def decode(data):
    try: value, _, end = read(bytes(data), 0, len(data), 1, None, None)
    except UnicodeDecodeError: raise KvError("KV_UTF8") from None
    check(end == len(data), "TRAILING")
    return value

def read(buf, pos, end, depth, within, last):
    check(depth <= MAX_DEPTH, "DEPTH")
    check(end - pos >= 8, "TRUNCATED")
    vlen, klen, kind, aux = struct.unpack_from("<IHBB", buf, pos)
    v, k, e, after = pos + 8, pos + 8 + vlen, pos + 8 + vlen + klen, pos + 8 + (vlen + klen + 7) // 8 * 8
    check(after - pos <= MAX_SIZE, "TOO_LARGE")
    check(after <= end, "TRUNCATED")
    check(NIL <= kind <= LIST, "TYPE")
    check(aux == 0, "AUX")
    check(vlen == VLEN.get(kind, vlen) and (kind < MAP or vlen % 8 == 0), "LENGTH")
    check(not any(buf[e:after]), "PADDING")
    data, key, name = buf[v:k], buf[k:e], buf[k:e].decode() if within == MAP else ""
    check(within == MAP or not key, "KEY")
    check(within != MAP or last is None or key > last, "ORDER")
    value, inner, p = {MAP: {}, LIST: [], STR: kind == STR and data.decode()}.get(kind, data), None, v
    if kind <= TRUE: value = (None, False, True)[kind - 1]
    elif kind <= UINT: value = int.from_bytes(data, "little", signed=kind == INT)
    elif kind == FLOAT: value, = struct.unpack("<d", data)
    check(value >= 2**63 if kind == UINT else kind != FLOAT or value == value or data == NAN, "NUMBER")
    while kind >= MAP and p < k:
        item, inner, p = read(buf, p, k, depth + 1, kind, inner)
        value.update({inner.decode(): item}) if kind == MAP else value.append(item)
    return value, key, after
