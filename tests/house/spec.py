"""The worked examples of docs/spec decode, say what the text around them says, and are vectors too.

An example is an indented block of lines of 8 bytes (or several groups of 8), each with what it means
behind it. The line in front of the block names in `backquotes` what must be found inside.
"""
import base64
import json
import re
import sys

from cases import ROOT, case, check, finish, start

sys.path.insert(0, str(ROOT / "tests/ports"))
import kv
from strict import wire

GROUP = r"(?:[0-9a-f]{2} ){7}[0-9a-f]{2}"
LINE = re.compile(rf"    ({GROUP}(?:  {GROUP})*)(?:\s|$)")
KINDS = {number: name for name, number in vars(wire).items() if name in
         ("HELLO", "MSG", "END", "CREDIT", "PING", "GOAWAY")}
FLAGS = {"MSG": {1: "OPEN", 2: "MORE", 4: "END", 8: "ONEWAY"}, "END": {1: "ABORT"}, "PING": {1: "ACK"}}


def examples(page):
    """(the line in front, the bytes) of each example on the page."""
    told, data, before = "", b"", ""
    for line in (ROOT / "docs/spec" / page).read_text().splitlines() + [""]:
        match = LINE.match(line)
        if match:
            told, data = told or before, data + bytes.fromhex(match.group(1))
        elif data:
            yield told, data
            told, data = "", b""
        before = line if line and not match else before


def vectors(page):
    return {entry["hex"] for entry in json.loads((ROOT / "tests/vectors" / page).read_text())}


def documents(told):
    """The values that the text spells out, as JSON; {"$bytes": base64} stands for bytes."""
    def bytes_of(value):
        return base64.b64decode(value["$bytes"]) if list(value) == ["$bytes"] else value
    return [json.loads(text, object_hook=bytes_of) for text in re.findall(r"`([{\[].*?[}\]])`", told)]


def headings(told):
    """`MSG OPEN|END` -> ("MSG", {"OPEN", "END"})"""
    for text in re.findall(r"`((?:%s)(?: [A-Z|]+)?)`" % "|".join(KINDS.values()), told):
        kind, _, flags = text.partition(" ")
        yield kind, set(flags.split("|")) - {""}


def heading(frame):
    kind = KINDS[frame.kind]
    return kind, {name for bit, name in FLAGS.get(kind, {}).items() if frame.flags & bit}


def document_in(frame):
    kind = KINDS[frame.kind]
    if kind == "MSG":
        return wire.parse_head(frame).meta
    return frame.content[-1] if kind in ("END", "GOAWAY") else None


def check_length(told, data):
    for number in re.findall(r", (\d+) bytes[.:]", told):
        check(len(data) == int(number), f"{len(data)} bytes, not {number}")


def check_packet(told, data):
    """One packet of whole frames."""
    check_length(told, data)
    frames = list(wire.parse(data))
    headings_told = list(headings(told))
    if headings_told:
        found = [heading(frame) for frame in frames]
        check(found == headings_told, f"the frames are {found}")
    told_documents = documents(told)
    if told_documents and frames[0].kind == wire.HELLO:
        check(data[16:] == kv.encode(told_documents[0]), "HELLO is not what the text says")
    elif told_documents:
        check(document_in(frames[0]) == told_documents[0], f"it holds {document_in(frames[0])}")
    check(data.hex() in vectors("session.json"), "tests/vectors/session.json has no such packet")


def check_beginning(data):
    """A frame whose header and body the page leaves out: as many zeros as fill the packet."""
    payload = data + bytes(wire.ROOM - len(data))
    frame, = wire.parse(wire.frame(5, wire.MSG, payload, wire.MORE))
    head = wire.parse_head(frame)
    check(head.total == 100000 and len(head.body) == 65504, f"{head.total} bytes, {len(head.body)} of them here")


def check_record(data):
    """Its parts as the reader of documents sees them; the sum is the business of the tests in C."""
    vlen, klen, kind = int.from_bytes(data[:4], "little"), int.from_bytes(data[4:6], "little"), data[6]
    check((vlen, klen, kind) == (len(data) - 8, 0, 0x10), "its header is not that of a record of this length")
    check(data.hex() in vectors("records.json"), "tests/vectors/records.json has no such record")


start()
for told, data in examples("kv.md"):
    with case("kv.md: " + told):
        check_length(told, data)
        if data[6] == 0x10:
            check_record(data)
            continue
        value, = documents(told)
        check(kv.decode(data) == value, f"it reads {kv.decode(data)!r}")
        check(kv.encode(value) == data, f"written, it is {kv.encode(value).hex(' ', 8)}")
        check(data.hex() in vectors("kv.json"), "tests/vectors/kv.json has no such document")

with case("kv.md: the reader is complete in at most 25 lines"):
    text = (ROOT / "docs/spec/kv.md").read_text()
    reader = re.search(r"^    read\(.*\n(?:      .*\n)+", text, re.M).group()
    check(reader.count("\n") <= 25, f"it has {reader.count(chr(10))}")
    errors = set(re.findall(r"`KV_([A-Z0-9_]+)`", text[:text.index("## 2.")]))
    check(set(re.findall(r"fail ([A-Z0-9_]+)", reader)) | {"TRAILING"} == errors, f"errors: {errors}")

for told, data in examples("session.md"):
    with case("session.md: " + told):
        if "the header, then" in told:
            check_beginning(data)
        else:
            check_packet(told, data)

# What stands in codecs.md is of any length, and a format's own: the vector tells what it reads as.
BYTES = re.compile(r"    ((?:[0-9a-f]{2} )*[0-9a-f]{2})(?:  |$)")
codec_forms = {(row["codec"], row["in"]): row["kv"] for row in
               json.loads((ROOT / "tests/vectors/codecs.json").read_text()) if row["kv"]}


def codec_examples():
    """(codec, the line in front, the bytes) of each example."""
    told, data, before = "", b"", ""
    for line in (ROOT / "docs/spec/codecs.md").read_text().splitlines() + [""]:
        match = BYTES.match(line)
        if match:
            told, data = told or before, data + bytes.fromhex(match.group(1))
        elif data:
            yield "msgpack", told, data
            told, data = "", b""
        if line.startswith("    <"):
            yield "xml", before, line.strip().encode()
        before = line if line and not match else before


for codec, told, data in codec_examples():
    with case("codecs.md: " + told):
        check_length(told, data)
        value, = documents(told)
        check(codec_forms.get((codec, data.hex())) == kv.encode(value).hex(),
              f"tests/vectors/codecs.json does not have {data.hex(' ')} as {value}")

with case("codecs.md: no example was passed over"):
    check(len(list(codec_examples())) == 5, f"{len(list(codec_examples()))} examples")
    indented = [line for line in (ROOT / "docs/spec/codecs.md").read_text().splitlines() if line.startswith("    ")]
    read = [line for line in indented if BYTES.match(line) or line.startswith("    <")]
    check(indented == read, f"not read: {set(indented) - set(read)}")

with case("codecs.md: every rule has a number of its own, and its errors are in the table of errors"):
    page = (ROOT / "docs/spec/codecs.md").read_text()
    rules = re.findall(r"^\*\*T([0-9]+)\.\*\*", page, re.M)
    check([int(rule) for rule in rules] == list(range(1, len(rules) + 1)), f"the rules are {rules}")
    table = (ROOT / "include/beam/error.h").read_text()
    for name in set(re.findall(r"`((?:CODEC|KV)_[A-Z0-9_]+)`", page)):
        check(f"X({name}," in table, f"there is no {name}")

with case("every rule of a session has a vector, or a test that names it"):
    rules = set(re.findall(r"^\*\*([A-Z][0-9]+)\.\*\*", (ROOT / "docs/spec/session.md").read_text(), re.M))
    held = {entry["rule"] for entry in json.loads((ROOT / "tests/vectors/session.json").read_text())}
    for folder in ("unit", "flow", "fault"):
        for path in (ROOT / "tests" / folder).rglob("*.[ch]"):
            for comment in re.findall(r"/\*.*?\*/", path.read_text(), re.S):
                held.update(re.findall(r"\b[A-Z][0-9]+\b", comment))
    later = {"U6"}                                          # carriers that have no page yet
    check(len(rules) > 30, f"only {len(rules)} rules were found")
    check(rules - later <= held, f"nothing holds {sorted(rules - later - held)}")

with case("every rule of records and files that bytes can break has a vector, the others a test that names it"):
    rules = set(re.findall(r"^\*\*(R[0-9]+)\.\*\*", (ROOT / "docs/spec/kv.md").read_text(), re.M))
    entries = json.loads((ROOT / "tests/vectors/records.json").read_text())
    held = {entry["rule"] for entry in entries}
    for folder in ("unit/kv", "fault"):
        for path in (ROOT / "tests" / folder).glob("*.[ch]"):
            for comment in re.findall(r"/\*.*?\*/", path.read_text(), re.S):
                held.update(re.findall(r"\bR[0-9]+\b", comment))
    check(len(rules) >= 18, f"only {len(rules)} rules were found")
    check(rules <= held, f"nothing holds {sorted(rules - held)}")
    check(len({entry["name"] for entry in entries}) == len(entries), "two vectors have one name")

with case("every rule of synchronisation names tests that exist"):
    files = {"S": "flow/test_store.c", "W": "flow/test_watch.c", "R": "flow/test_replica.c",
             "F": "flow/test_store_file.c", "D": "unit/runtime/test_store_disk.c"}
    rules = re.split(r"^\*\*(Y[0-9]+)\.\*\*", (ROOT / "docs/spec/kv.md").read_text(), flags=re.M)[1:]
    check(len(rules) >= 30, f"only {len(rules) // 2} rules were found")
    for rule, text in zip(rules[::2], rules[1::2]):
        named = [(letter, name) for letter, names in re.findall(r"\b([SWRFD]):((?:\s+`\w+`,?)+)", text)
                 for name in re.findall(r"`(\w+)`", names)]
        check(named or "sim" in text, f"{rule} names no test")
        for letter, name in named:
            there = re.search(rf"TEST\w*\({name}\)", (ROOT / "tests" / files[letter]).read_text())
            check(there, f"{rule}: there is no {name} in {files[letter]}")

with case("no example was passed over"):
    for page, least in (("kv.md", 5), ("session.md", 8)):
        text = (ROOT / "docs/spec" / page).read_text()
        read = sum(len(data) for _, data in examples(page))
        lines = [line for line in text.splitlines() if line.startswith("    ")]
        there = sum(8 * len(re.findall(GROUP, line)) for line in lines)
        check(len(list(examples(page))) >= least, f"{page} has {len(list(examples(page)))} examples")
        check(read == there, f"{page}: {read} bytes read of {there}")
finish()
