"""tests/vectors/records.json, level 1 of docs/spec/kv.md, in Python (kv_records.py) and JavaScript (kv_records.mjs)."""
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys

# The counts are those of the closing line; whoever runs this script records them.
os.environ.pop("BEAM_TEST_RESULTS", None)
sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "house"))
from cases import ROOT, case, check, finish, skip  # noqa: E402
import kv  # noqa: E402
import kv_records as records  # noqa: E402
from kv_json import json_text  # noqa: E402

PATH = ROOT / "tests/vectors/records.json"
KINDS = ["none", "head", "snap", "live", "delta", "mark", "early", "closed"]
READ = ("error", "end", "stop", "rev", "state", "clean")               # what a reader finds out of a file
FILES = 1000
OPENED = READ + ("open", "cut", "new_epoch")                           # and what a writer

if not PATH.exists():
    print("there is no tests/vectors/records.json")
    sys.exit(77)
VECTORS = json.loads(PATH.read_text())


def in_order(state):
    return json_text({key: state[key] for key in sorted(state, key=str.encode)})


def python_record(data, vector):
    try:
        head = vector["record"] == "head"
        record = records.read_head(data) if head else records.read(data, 0, int(vector["epoch"], 16))
    except kv.KvError as error:
        return {"error": str(error)}
    said = {"error": None, "record": KINDS[record.kind], "rev": record.rev, "put": None, "del": None}
    if record.kind in (records.SNAP, records.DELTA):
        said["put"] = in_order({key: value for key, value in record.body if value is not records.GONE})
        said["del"] = json_text([key for key, value in record.body if value is records.GONE])
    return said


def python_file(data, _):
    file = records.File(data)
    said = {name: getattr(file, name, None) for name in OPENED}
    said.update(state=None if file.error else in_order(file.state), rev=None if file.error else file.rev)
    return said


SCRIPT = """
import fs from "node:fs";
import { pathToFileURL } from "node:url";
const { KvError } = await import(pathToFileURL(process.argv[1] + "/kv.mjs"));
const { follow, read, readHead } = await import(pathToFileURL(process.argv[1] + "/kv_records.mjs"));
const { toJson } = await import(pathToFileURL(process.argv[1] + "/kv_json.mjs"));
const kinds = %s;
const inOrder = (map) => toJson(new Map([...map].sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)))));
function record(data, vector) {
  let found;
  try { found = vector.record === "head" ? readHead(data) : read(data, 0, BigInt("0x" + vector.epoch)); } catch (error) {
    if (error instanceof KvError) return { error: error.message };
    throw error;
  }
  const said = { error: null, record: kinds[found.kind], rev: String(found.rev), put: null, del: null };
  if (said.record === "snap" || said.record === "delta") {
    said.put = inOrder(new Map(found.body.filter(([, value]) => value !== undefined)));
    said.del = toJson(found.body.filter(([, value]) => value === undefined).map(([key]) => key));
  }
  return said;
}
function file(data) {
  const { error, end, stop, rev, state, clean } = follow(data);
  return { error, end, stop, clean, rev: error ? null : String(rev), state: error ? null : inOrder(state) };
}
const vectors = JSON.parse(fs.readFileSync(0));
console.log(JSON.stringify(vectors.map((vector) => (vector.kind === "file" ? file : record)(Buffer.from(vector.hex, "hex"), vector))));
"""


def javascript_answers(vectors):
    command = ["node", "--input-type=module", "-e", SCRIPT % json.dumps(KINDS), str(HERE)]
    done = subprocess.run(command, input=json.dumps(vectors), capture_output=True, text=True)
    check(done.returncode == 0, done.stderr)
    answers = json.loads(done.stdout)
    for answer in answers:
        answer["rev"] = None if answer.get("rev") is None else int(answer["rev"])
    return answers


def random_file(seed):
    """Records that mostly may come where they stand, all with the right sum; at times with something else behind."""
    rng, epoch = random.Random(seed), 0x1122334455667788
    rev = durable = rng.choice((0, 41, 2**63 - 3))
    file, live = records.write(records.HEAD, rev, epoch, epoch), False
    for _ in range(rng.randint(0, 12)):
        kind = rng.choice((records.SNAP, records.LIVE, records.DELTA) if not live else
                          (records.DELTA, records.DELTA, records.MARK, records.EARLY, records.CLOSED))
        stated = rev + 1 if kind == records.DELTA else rng.randint(min(durable, rev), rev) if kind == records.MARK else rev
        if rng.random() < 0.05:                         # one that may not come, or not so
            kind, stated = rng.choice((0, 2, 3, 4, 5, 6, 7, 8, 9)), max(0, stated + rng.randint(-1, 1))
        entries = {rng.choice("abcde"): rng.choice((1, None, [True], "x", records.GONE)) for _ in range(rng.randint(0, 3))}
        if kind == records.SNAP:
            entries = {key: value for key, value in entries.items() if value is not records.GONE or rng.random() < 0.02}
        body = sorted(entries.items(), reverse=rng.random() < 0.02) if kind in (records.SNAP, records.DELTA) else []
        file += records.write(kind, stated, body, epoch)
        live, rev = live or kind == records.LIVE, stated if kind == records.DELTA else rev
        durable = stated if kind >= records.MARK or kind == records.LIVE else durable
    return file + rng.choice((b"", bytes(1), bytes(64), b"\x10" * 8, records.write(records.MARK, rev, [], 1)[:13]))


def needs_sums(vector):
    return "KV_SUM" in (vector["error"], vector.get("stop"))


def compare(answers, with_sums, names):
    """How many were compared. What a refused record would have said is not asked."""
    wrong, compared = [], 0
    for vector, said in zip(VECTORS, answers, strict=True):
        if needs_sums(vector) and not with_sums:
            continue
        compared += 1
        wanted = names if vector["kind"] == "file" else ("error",) if vector["error"] else \
            ("error", "record", "rev", "put", "del")
        for name in wanted:
            expected = bool(vector[name]) if name in ("clean", "new_epoch") else vector[name]
            if said.get(name) != expected:
                wrong.append(f"{vector['name']}: {name} is {said.get(name)!r}, expected {expected!r}")
    check(not wrong, "\n".join(wrong[:20]))
    check(compared > len(VECTORS) / 2, f"only {compared} of {len(VECTORS)}")


judges = {"record": python_record, "file": python_file}
with case("Python reads every record and file, and judges whether a writer may go on, as named"
          + ("" if records.SUMS else "; no sums: libxxhash is not installed")):
    answers = [judges[vector["kind"]](bytes.fromhex(vector["hex"]), vector) for vector in VECTORS]
    compare(answers, records.SUMS, OPENED if records.SUMS else READ)

with case("sums are looked at where CI runs"):
    check(records.SUMS or os.environ.get("CI") != "true", "libxxhash is missing")

with case("Python writes every record as it was"):
    if not records.SUMS:
        skip("libxxhash is not installed")
    for vector in VECTORS:
        if vector["kind"] == "record" and not vector["error"]:
            data, epoch = bytes.fromhex(vector["hex"]), int(vector["epoch"], 16)
            record = records.read_head(data) if vector["record"] == "head" else records.read(data, 0, epoch)
            again = records.write(record.kind, record.rev, record.body, epoch)
            check(again == data, f"{vector['name']}: {again.hex()}")

with case("JavaScript reads every record and file as named, but for those that only their sum gives away"):
    if not shutil.which("node"):
        check(os.environ.get("CI") != "true", "node is missing")
        skip("node is not installed (Debian: nodejs)")
    compare(javascript_answers(VECTORS), False, READ)

with case(f"Python and JavaScript say the same of {FILES} random files"):
    if not records.SUMS or not shutil.which("node"):
        skip("libxxhash or node is not installed")
    files = [{"kind": "file", "hex": random_file(seed).hex()} for seed in range(1, 1 + FILES)]
    ends = set()
    for seed, (file, said) in enumerate(zip(files, javascript_answers(files), strict=True), 1):
        wanted = python_file(bytes.fromhex(file["hex"]), None)
        check(all(said[name] == wanted[name] for name in READ),
              f"seed {seed}: {file['hex']}\n{said}\n{wanted}")
        ends.add((wanted["stop"], wanted["error"]))
    check(len(ends) > 6, f"only {ends}")
finish()
