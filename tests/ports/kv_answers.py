"""Answers for documents that come over a pipe, by kv.py: kv_answers.py [PORT], where PORT is another file in its place.

A batch is u32 length, then documents, each u32 length and its bytes; so are its answers. An answer is the error's name,
or the JSON text, a NUL, and the document encoded again. What is neither begins with "!". kv_answers.c and .mjs say the
same; differ.py compares them."""
import importlib.util, pathlib, struct, sys
sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
spec = importlib.util.spec_from_file_location("kv", sys.argv[1] if len(sys.argv) > 1 else HERE / "kv.py")
kv = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kv)
from kv_json import json_text


def answer(data):
    try:
        value = kv.decode(data)
        return json_text(value).encode() + b"\0" + kv.encode(value)
    except kv.KvError as error:
        return str(error).encode()
    except Exception as error:
        return f"!{type(error).__name__}: {error}".encode()


def blocks(batch):
    pos = 0
    while pos < len(batch):
        size, = struct.unpack_from("<I", batch, pos)
        yield batch[pos + 4:pos + 4 + size]
        pos += 4 + size


def joined(parts):
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


if __name__ == "__main__":
    while head := sys.stdin.buffer.read(4):
        batch = sys.stdin.buffer.read(*struct.unpack("<I", head))
        sys.stdout.buffer.write(joined([joined(map(answer, blocks(batch)))]))
        sys.stdout.buffer.flush()
