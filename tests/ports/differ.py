"""Random and mutated documents for three readers and writers, which must say the same of each:
differ.py [--cases N] [--seed FIRST], or ./dev differ [cases] [first seed].

C (kv_answers.c over this library), Python (kv.py) and JavaScript (kv.mjs) each get every document over a pipe. All
accept it, with the same JSON text and the same bytes when written again, which are those it was read from; or all
refuse it, for the first rule that is broken in the order of docs/spec/kv.md section 3. A case is made from its seed
alone: what failed as case 1234 fails again with --cases 1 --seed 1234.

A case begins with a vector or a random value, as a tree of entries. A few changes are made to entries of the tree, with
all lengths around them kept right, so that what is broken is often one rule alone; then maybe some to the bytes."""
import argparse, collections, copy, json, os, pathlib, random, struct, subprocess, sys, time
sys.dont_write_bytecode = True

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BATCH = 512
CI_CASES = 4000          # from seed 1; some seconds
FINDS_MAX = 10
NIL, FALSE, TRUE, INT, UINT, FLOAT, STR, BYTES, MAP, LIST = range(1, 11)

U64 = [0, 1, 2**31, 2**32, 2**52, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1, 2**64 - 2**53 - 1]
FLOATS = [struct.unpack("<Q", struct.pack("<d", float(text)))[0] for text in (
    "0 -0 1 -1 0.1 1e-6 1e-7 9.5e-7 1e20 1e21 123456789012345678 1e22 5e-324 2.2250738585072014e-308 1.5e300 5e22 "
    "2.225073858507201e-308 1.7976931348623157e308 inf -inf nan 0.3 1e23 9007199254740993 4.35 7.120236347223045e-307"
).split()]
NANS = [0x7ff8 << 48, 0xfff8 << 48, 0x7ff8 << 48 | 1, 0x7ff0 << 48 | 1, 0x7ffc << 48, 2**64 - 1, 0xfff0 << 48 | 1]
TEXTS = ["", "a", "b", "ab", "abc", "abcdefg", "abcdefgh", "abcdefghi", "aaaaaaaaaaaaaaaab", "\0", "a\0", "$", "$a",
         "$bytes", "$float", "é", "e\u0301", "€", "\ud7ff\ue000", "\ufeff", "\ufeffa", "\ufffd", "\uffff", "\U00010000",
         "\U0010ffff", "10", "2", "-1", "__proto__", "\"\\/\b\f\n\r\t\x01\x1f\x7f", "\u2028", "x" * 31, "z" * 70]
NOT_UTF8 = [b"\x80", b"\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xc2", b"\xe0\x9f\xbf", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xe1\x80",
            b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xff", b"\xfe", b"\xc3(", b"\xf1\x80\x80"]
LENGTHS = [0, 1, 7, 8, 9, 16, 2**31 - 8, 2**31, 2**32 - 1, 2**32 - 8, 2**32 - 16, 2**16, 2**31 - 16]
WORDS = [struct.pack("<I", length) for length in LENGTHS]


class Entry:
    """One entry as it will be written: what is None is as it should be."""
    def __init__(self, type, data=b"", key=b"", inner=None):
        self.type, self.data, self.key, self.inner = type, data, key, inner
        self.aux, self.padding, self.vlen, self.klen = 0, None, None, None

    def bytes(self):
        data = self.data if self.inner is None else b"".join(entry.bytes() for entry in self.inner)
        vlen = len(data) if self.vlen is None else self.vlen
        klen = len(self.key) if self.klen is None else self.klen
        padding = -len(data + self.key) % 8
        fill = bytes(padding) if self.padding is None else self.padding.to_bytes(8, "little")[8 - padding:]
        return struct.pack("<IHBB", vlen, klen % 2**16, self.type, self.aux) + data + self.key + fill

    def all(self):
        yield self
        for entry in self.inner or ():
            yield from entry.all()


def parse(data, pos=0):
    """The entries from pos on, of a valid document."""
    entries = []
    while pos < len(data):
        vlen, klen, type, _ = struct.unpack_from("<IHBB", data, pos)
        value, key = data[pos + 8:pos + 8 + vlen], data[pos + 8 + vlen:pos + 8 + vlen + klen]
        entries.append(Entry(type, value, key, parse(value) if type >= MAP else None))
        pos += 8 + (vlen + klen + 7) // 8 * 8
    return entries


def random_text(rng):
    return "".join(rng.choices(TEXTS, k=rng.choice((1, 1, 1, 2, 3)))).encode()


def random_scalar(rng, key):
    type = rng.randint(NIL, BYTES)
    number = rng.choice(U64) if rng.random() < 0.5 else rng.getrandbits(64) >> rng.randrange(64)
    if type in (INT, UINT):
        type = UINT if number >= 2**63 and rng.random() < 0.5 else INT
        return Entry(type, struct.pack("<Q", number % 2**64), key)
    if type == FLOAT:
        bits = rng.choice(FLOATS) if rng.random() < 0.5 else rng.getrandbits(64)
        if rng.random() < 0.2:                          # few digits, and any exponent
            bits, = struct.unpack("<Q", struct.pack("<d", float(f"{rng.randrange(1000)}e{rng.randint(-25, 25)}")))
        return Entry(type, struct.pack("<Q", bits if bits & 2**63 - 1 <= 0x7ff << 52 else NANS[0]), key)
    if type == STR:
        return Entry(type, random_text(rng), key)
    return Entry(type, rng.randbytes(rng.choice((0, 1, 2, 3, 7, 8, 9, 30))) if type == BYTES else b"", key)


def random_entry(rng, size, key=b"", depth=1):
    if depth >= 6 or rng.random() < (0.2 if depth == 1 else 0.6):
        return random_scalar(rng, key)
    type, count = rng.choice((MAP, MAP, LIST)), rng.randint(0, size)
    keys = sorted({random_text(rng) for _ in range(count)}) if type == MAP else [b""] * count
    return Entry(type, b"", key, [random_entry(rng, size // 2, inner, depth + 1) for inner in keys])


# Changes to the tree. Each takes an entry, and what holds it (None: nothing does).

def change_type(rng, entry, _):
    entry.type = rng.choice((0, 11, 16, 255, rng.randrange(256), *range(1, 11)))


def change_aux(rng, entry, _):
    entry.aux = rng.choice((1, 2, 128, 255))


def change_key(rng, entry, _):
    entry.key = rng.choice((random_text(rng), entry.key + b"\0", entry.key + b"a", entry.key[:-1], entry.key.upper()))


def change_data(rng, entry, _):
    if entry.inner is None:
        entry.data = rng.choice((rng.randbytes(8), struct.pack("<Q", rng.choice(U64 + FLOATS + NANS)), entry.data + b"\0",
                                 entry.data[:-1], random_text(rng), b""))


def break_text(rng, entry, _):
    attribute = rng.choice(("key", "data"))
    text = getattr(entry, attribute)
    if entry.inner is None or attribute == "key":
        at = rng.randint(0, len(text))
        setattr(entry, attribute, text[:at] + rng.choice(NOT_UTF8) + text[at:])


def break_number(rng, entry, _):
    if entry.inner is None:
        entry.type = rng.choice((UINT, FLOAT))
        entry.data = struct.pack("<Q", rng.choice(U64 if entry.type == UINT else NANS))


def change_vlen(rng, entry, _):
    length = len(entry.bytes()) - 8
    entry.vlen = max(0, rng.choice((length + rng.choice((-8, -1, 1, 8)), rng.choice(LENGTHS))))
    if rng.random() < 0.5:                              # its key takes up what the value gives away, or the other way
        entry.klen = (len(entry.data + entry.key) if entry.inner is None else length) - entry.vlen


def change_klen(rng, entry, _):
    entry.klen = rng.choice((len(entry.key) + rng.choice((-8, -1, 1, 8)), 0, 8, 65535, rng.randrange(65536)))


def set_padding(rng, entry, _):
    entry.padding = 1 << rng.randrange(64)


def swap(rng, entry, outer):
    if outer and len(outer.inner) > 1:
        at = rng.randrange(len(outer.inner) - 1)
        outer.inner[at:at + 2] = outer.inner[at + 1], outer.inner[at]


def swap_keys(rng, entry, outer):
    if outer:
        other = rng.choice(outer.inner)
        entry.key, other.key = other.key, entry.key


def twice(rng, entry, outer):
    if outer:
        outer.inner.insert(rng.randint(0, len(outer.inner)), copy.deepcopy(entry))


def remove(rng, entry, outer):
    if outer:
        outer.inner.remove(entry)


def nest(rng, entry, _):
    inner, deep = copy.copy(entry), rng.choice((1, 1, 2, 28, 29, 30, 31, 32, 33))
    inner.key = b""
    for _ in range(deep - 1):
        inner = Entry(LIST, b"", b"", [inner])
    entry.type, entry.data, entry.inner = LIST, b"", [inner]
    entry.vlen = entry.klen = entry.padding = None


def replace(rng, entry, _):
    new = random_entry(rng, 3)
    entry.type, entry.data, entry.inner = new.type, new.data, new.inner


TREE = [change_type, change_aux, change_key, change_data, change_data, break_text, break_text, break_number, change_vlen,
        change_klen, set_padding, swap, swap_keys, twice, remove, nest, replace, replace]


def pairs(entry, outer=None):
    yield entry, outer
    for inner in entry.inner or ():
        yield from pairs(inner, entry)


# Changes to the bytes. Each takes the document and another one.

def flip(rng, data, _):
    for _ in range(rng.choice((1, 1, 2, 5))):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def cut(rng, data, _):
    return data[:rng.randint(0, len(data))]


def append(rng, data, other):
    return data + rng.choice((bytes(1), bytes(8), rng.randbytes(rng.randint(1, 16)), other))


def splice(rng, data, other):
    step = rng.choice((1, 8))
    return data[:rng.randint(0, len(data) // step) * step] + other[rng.randint(0, len(other) // step) * step:]


def set_word(rng, data, _):
    at = rng.randrange(0, max(1, len(data) - 3), rng.choice((4, 8)))
    data[at:at + 4] = rng.choice(WORDS)
    return data


def set_byte(rng, data, _):
    if data:
        data[rng.randrange(len(data))] = rng.randrange(256)
    return data


def move(rng, data, _):
    at, to = (rng.randrange(0, len(data) + 1, 8) for _ in range(2))
    return data[:at] + data[at + 8:] if rng.random() < 0.3 else data[:to] + data[at:at + 8] + data[to:]


BYTES_OF_IT = [flip, cut, append, splice, set_word, set_byte, move]


def load():
    entries = json.loads((ROOT / "tests/vectors/kv.json").read_text())
    return [bytes.fromhex(entry["hex"]) for entry in entries if not entry["error"]], \
        [bytes.fromhex(entry["hex"]) for entry in entries]


VALID, ALL = load()


def document(seed):
    """The case of that number."""
    rng = random.Random(seed)
    if rng.random() < 0.1:                              # a vector that may be broken already
        data = bytearray(rng.choice(ALL))
    else:
        root, = parse(rng.choice(VALID)) if rng.random() < 0.3 else [random_entry(rng, rng.choice((2, 4, 8)))]
        for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
            entry, outer = rng.choice(list(pairs(root)))
            rng.choice(TREE)(rng, entry, outer)
        data = bytearray(root.bytes())
        if rng.random() < 0.75:
            return bytes(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        data = rng.choice(BYTES_OF_IT)(rng, data, rng.choice(ALL))
    return bytes(data)


class Port:
    """A process that answers batches of documents."""
    def __init__(self, *command, **options):
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, start_new_session=True, **options)

    def ask(self, documents):
        batch = b"".join(struct.pack("<I", len(data)) + data for data in documents)
        self.process.stdin.write(struct.pack("<I", len(batch)) + batch)
        self.process.stdin.flush()

    def take(self, size):
        data = self.process.stdout.read(size)
        if len(data) < size:
            raise RuntimeError(f"{self.process.args} ended with {self.process.wait()}")
        return data

    def answers(self):
        answers, pos = [], 0
        batch = self.take(*struct.unpack("<I", self.take(4)))
        while pos < len(batch):
            size, = struct.unpack_from("<I", batch, pos)
            answers.append(batch[pos + 4:pos + 4 + size])
            pos += 4 + size
        return answers

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait()


def commands(build):
    """How each of the three is started."""
    return {"C": [pathlib.Path(build) / "tests/kv_answers"],
            "Python": [sys.executable, HERE / "kv_answers.py"],
            "JavaScript": ["node", HERE / "kv_answers.mjs"]}


def ports(build):
    return {name: Port(*command) for name, command in commands(build).items()}


def shown(answer):
    text, nul, again = answer.partition(b"\0")
    return text.decode(errors="replace") + (f" written as {again.hex()}" if nul else "")


class Differ:
    def __init__(self, ports):
        self.ports, self.finds, self.verdicts = ports, [], collections.Counter()

    def judge(self, seed, data, answers):
        first = answers["C"]
        text, nul, again = first.partition(b"\0")
        self.verdicts["accepted" if nul else first.decode()] += 1
        if len(set(answers.values())) > 1 or first.startswith(b"!") or (nul and again != data):
            lines = [f"{name}: {shown(answer)}" for name, answer in answers.items()]
            self.finds.append(f"seed {seed}: {data.hex()}\n    " + "\n    ".join(lines))

    def run(self, first, count, progress=lambda done: None):
        """Stops with the first batch that has a find. The next batch is made while one is answered."""
        batches = (range(at, min(at + BATCH, first + count)) for at in range(first, first + count, BATCH))
        under_way, done = None, 0
        for seeds in [*batches, None]:
            made = seeds and [(seed, document(seed)) for seed in seeds]
            if under_way:
                answers = {name: port.answers() for name, port in self.ports.items()}
                for i, (seed, data) in enumerate(under_way):
                    self.judge(seed, data, {name: answer[i] for name, answer in answers.items()})
                done += len(under_way)
                progress(done)
            if self.finds or not made:
                return done
            for port in self.ports.values():
                port.ask(data for _, data in made)
            under_way = made


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    arguments.add_argument("--cases", type=int, default=100_000)
    arguments.add_argument("--seed", type=int, default=1, help="of the first case")
    arguments.add_argument("--build", default=os.environ.get("BEAM_BUILD_DIR", ROOT / "build/dev"))
    options = arguments.parse_args()
    since = told = time.monotonic()

    def progress(done):
        nonlocal told
        if time.monotonic() - told > 10:
            told = time.monotonic()
            print(f"{done} of {options.cases}", flush=True)
    three = ports(options.build)
    differ = Differ(three)
    try:
        differ.run(options.seed, options.cases, progress)
        for port in three.values():
            port.close()
    except KeyboardInterrupt:                           # what was done so far is counted
        for port in three.values():
            port.process.kill()
    done = sum(differ.verdicts.values())
    for find in differ.finds[:FINDS_MAX]:
        print(find)
    print(", ".join(f"{name} {count}" for name, count in differ.verdicts.most_common()))
    print(f"{done} documents from seed {options.seed} in {time.monotonic() - since:.0f} s, {len(differ.finds)} finds")
    return bool(differ.finds)


if __name__ == "__main__":
    sys.exit(main())
