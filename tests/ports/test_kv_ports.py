"""kv documents in C, Python and JavaScript: every vector, what writers must refuse, some thousand random documents
(differ.py), and that these find a port in which one check is missing.

    test_kv_ports.py        BEAM_BUILD_DIR names the folder where kv_answers was built
"""
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile

# The counts are those of the closing line; whoever runs this script records them.
os.environ.pop("BEAM_TEST_RESULTS", None)
sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "house"))
from cases import ROOT, case, check, finish, run  # noqa: E402
import differ  # noqa: E402
import kv  # noqa: E402

BUILD = pathlib.Path(os.environ.get("BEAM_BUILD_DIR", ROOT / "build/dev"))
CASES = 4000            # some seconds
LINES_MAX = {"kv.py": 60, "kv.mjs": 80}

if not shutil.which("node"):
    print("node is not installed (Debian: nodejs)")
    sys.exit(1 if os.environ.get("CI") == "true" else 77)

# What is left out, by port: each is one rule of docs/spec/kv.md that is then not looked at, or looked at wrongly.
MUTANTS = {
    "Python": ("kv.py", [
        ('    check(depth <= MAX_DEPTH, "DEPTH")\n    check(end', "    check(end"),
        ('    check(end - pos >= 8, "TRUNCATED")\n', ""),
        ('    check(after - pos <= MAX_SIZE, "TOO_LARGE")\n', ""),
        ('    check(after <= end, "TRUNCATED")\n', ""),
        ("check(NIL <= kind <= LIST,", "check(kind,"),
        ('    check(aux == 0, "AUX")\n', ""),
        ("vlen == VLEN.get(kind, vlen) and ", ""),
        (" and (kind < MAP or vlen % 8 == 0)", ""),
        ('    check(not any(buf[e:after]), "PADDING")\n', ""),
        ('    check(within == MAP or not key, "KEY")\n', ""),
        ("key > last", "key >= last"),
        ("kind != FLOAT or value == value or data == NAN", "True"),
        ("value >= 2**63 if kind == UINT", "True if kind == UINT"),
        ("data.decode()", 'data.decode(errors="replace")'),
        ("kind, data = UINT if value >= 2**63 else INT,", "kind, data = INT,"),
        ("(utf8(name), name)", '(name.encode("utf-16be"), name)'),
        ('    check(end == len(data), "TRAILING")\n', ""),
    ]),
    "JavaScript": ("kv.mjs", [
        ('  check(depth <= MAX_DEPTH, "DEPTH");\n  check(end', "  check(end"),
        ('  check(end - pos >= 8, "TRUNCATED");\n', ""),
        ('  check(size <= MAX_SIZE, "TOO_LARGE");\n', ""),
        ('  check(size <= end - pos, "TRUNCATED");\n', ""),
        (" && type <= LIST", ""),
        ('  check(aux === 0, "AUX");\n', ""),
        ("type <= FLOAT ? vlen === 8 : ", ""),
        ("type <= BYTES || vlen % 8 === 0", "true"),
        ('  check(buf.subarray(k + klen, next).every((byte) => byte === 0), "PADDING");\n', ""),
        ('  check(within === MAP || klen === 0, "KEY");\n', ""),
        (", last) > 0", ", last) >= 0"),
        ('  check(type !== UINT || data.readBigUInt64LE() >= TWO_63, "NUMBER");\n', ""),
        (" || data.readBigUInt64LE() === NAN", ""),
        (", ignoreBOM: true", ""),
        ("fatal: true", "fatal: false"),
        ("value < TWO_63 ? INT : UINT", "INT"),
        ("new Map(entries)", "new Map(Object.entries(Object.fromEntries(entries)))"),
        ("(vlen + klen) / 8", "(vlen + klen >>> 0) / 8"),
        ('  check(next === buf.length, "TRAILING");\n', ""),
    ]),
    "C": ("kv/checker.c", [
        ("depth + top <= BEAM_KV_DEPTH_MAX", "depth + top <= BEAM_KV_DEPTH_MAX + 1"),
        ("BM_UNLIKELY(!padding_is_zero(pos, &e))", "false"),
        ("r = bm_entry_read(pos, (uint64_t)(in.end - pos), &e);", "e = bm_entry_at(pos);"),
        ("e->key_len == 0 ? 0 : -BEAM_EKV_KEY", "0"),
        ("in->last_len) <= 0)", "in->last_len) < 0)"),
        ("(prefix & BM_UTF8_HIGH_BITS) != 0 || e->key_len > 8", "e->key_len > 8"),
        ("&& bits != BM_ENTRY_NAN_BITS", ""),
        ("? 0 : -BEAM_EKV_UTF8;", "? 0 : 0;"),
        ("root.len < len", "false"),
    ]),
}


def expected(vector):
    return (vector["error"] or vector["json"] + "\0").encode() + (b"" if vector["error"] else bytes.fromhex(vector["hex"]))


def ask(port, documents):
    port.ask(documents)
    return port.answers()


def mutant(where, file, old, new):
    """The path of a copy with that change."""
    text = (ROOT / file).read_text()
    check(old in text, f"{file} has no {old!r}")
    path = where / pathlib.Path(file).name
    path.write_text(text.replace(old, new, 1))
    return path


def compiled(source):
    """kv_answers, with that file in front of the library, so that the library's own is not taken."""
    commands = json.loads((BUILD / "compile_commands.json").read_text())
    entry, = [entry for entry in commands if entry["file"] == str(ROOT / "kv/checker.c")]
    words = shlex.split(entry["command"])
    for word, count in (("-o", 2), ("-c", 2)):
        at = words.index(word)
        del words[at:at + count]
    words = [word for word in words if word not in ("-Werror", "-fanalyzer")]
    run(*words, "-w", source, HERE / "kv_answers.c", BUILD / "libbeam.a", "-luring", "-lpthread", "-lm",
        "-o", source.with_name("kv_answers"), cwd=entry["directory"])
    return source.with_name("kv_answers")


def told_apart(command, documents, answers):
    """Whether that port says something else of one of the documents."""
    port = differ.Port(*command, stderr=subprocess.DEVNULL)
    try:
        return any(ask(port, documents[at:at + differ.BATCH]) != answers[at:at + differ.BATCH]
                   for at in range(0, len(documents), differ.BATCH))
    except (RuntimeError, OSError):                     # it ended: a crash, or a sanitizer
        return True
    finally:
        port.process.kill()
        port.process.communicate()


for name, most in LINES_MAX.items():
    with case(f"{name} is a complete reader and writer in at most {most} lines"):
        lines = len((HERE / name).read_text().splitlines())
        check(lines <= most, f"{lines} lines")

vectors = json.loads((ROOT / "tests/vectors/kv.json").read_text())
three = differ.ports(BUILD)
for name, port in three.items():
    with case(f"{name} says of every vector what it is"):
        answers = ask(port, [bytes.fromhex(vector["hex"]) for vector in vectors])
        wrong = [f"{vector['name']}: {differ.shown(answer)}" for vector, answer in zip(vectors, answers)
                 if answer != expected(vector)]
        check(not wrong and len(answers) == len(vectors), "\n".join(wrong[:20]))

with case("nesting of any depth is refused, and neither a stack nor patience ends"):
    lists = b"".join((8 * n).to_bytes(4, "little") + b"\0\0\x0a\0" for n in range(100_000 - 1, -1, -1))
    for name, port in three.items():
        check(ask(port, [lists]) == [b"KV_DEPTH"], name)

with case("the longest key and a large document are the same in all"):
    value = {"k" * 65535: [1.5, "\U00010000" * 1000, bytes(3_000_001)], "é" * 32767: -1}
    data = kv.encode(value)
    for name, port in three.items():
        text, nul, again = ask(port, [data])[0].partition(b"\0")
        check(again == data, f"{name}: {len(text)} bytes of text, {len(again)} of {len(data)} again")

with case("writers refuse what has no encoding, and mend nothing but a NaN (K16)"):
    deep = []
    for _ in range(32):
        deep = [deep]
    refused = {"KV_UTF8": ["\ud800", ["a\udfff"], {"\udc00\ud800": 1}], "KV_NUMBER": [2**64, -2**63 - 1],
               "KV_DEPTH": [deep], "KV_TOO_LARGE": [{"k" * 65536: None}, {"é" * 32768: None}]}
    for error, values in refused.items():
        for value in values:
            try:
                got = kv.encode(value).hex()
            except kv.KvError as wrong:
                got = str(wrong)
            check(got == error, f"Python: {error}, and got {got}")
    script = """
        import { encode, KvError } from "%s";
        let deep = [];
        for (let i = 0; i < 32; i++) deep = [deep];
        const refused = { KV_UTF8: ["\\ud800", ["a\\udfff"], new Map([["\\udc00\\ud800", 1]])],
          KV_NUMBER: [2n ** 64n, -(2n ** 63n) - 1n, undefined], KV_DEPTH: [deep],
          KV_TOO_LARGE: [new Map([["k".repeat(65536), null]]), new Map([["é".repeat(32768), null]])] };
        for (const [error, values] of Object.entries(refused))
          for (const value of values) {
            let got;
            try { got = encode(value).toString("hex"); } catch (wrong) { got = wrong.message; }
            if (got !== error) console.log(`JavaScript: ${error}, and got ${got}`);
          }
        const nan = new Float64Array(new BigUint64Array([0xfff8000000000001n]).buffer)[0];
        const map = new Map([["b", 1n], ["\\u{10000}", 2n], ["a", 3n], ["\\uffff", 4n], ["", 5n]]);
        console.log([nan, -0, "\\ufeff\\ud83d\\ude00", 2n ** 63n - 1n, map].map((value) => encode(value).toString("hex")).join());
    """ % (HERE / "kv.mjs")
    said = run("node", "--input-type=module", "-e", script).strip()
    values = [-float("nan"), -0.0, "\ufeff\U0001f600", 2**63 - 1, {"b": 1, "\U00010000": 2, "a": 3, "\uffff": 4, "": 5}]
    check(said == ",".join(kv.encode(value).hex() for value in values), said)
    check(said.startswith("0800000000000600000000000000f87f,"), said)

with case(f"{CASES} random documents are the same in all, and of every kind"):
    judged = differ.Differ(three)
    done = judged.run(1, CASES)
    check(not judged.finds and done == CASES, "\n".join(judged.finds))
    kinds = {"accepted"} | {vector["error"] for vector in vectors if vector["error"]}
    check(set(judged.verdicts) == kinds, f"only {sorted(judged.verdicts)}")
    check(judged.verdicts["accepted"] > CASES / 5, f"only {judged.verdicts['accepted']} are accepted")
    documents = [differ.document(seed) for seed in range(1, 1 + CASES)]
    answers = ask(three["C"], documents)
for name, port in three.items():
    with case(f"{name} ends when nothing more comes"):
        status = port.close()
        check(status == 0, f"ended with {status}")

for name, (file, changes) in MUTANTS.items():
    file = file if "/" in file else f"tests/ports/{file}"
    with case(f"the same documents find {file} out with one of its checks wrong: {len(changes)} of them"):
        missed = []
        for old, new in changes:
            with tempfile.TemporaryDirectory(prefix="beam-ports-") as folder:
                path = mutant(pathlib.Path(folder), file, old, new)
                command = [compiled(path)] if name == "C" else [*differ.commands(BUILD)[name], path]
                if not told_apart(command, documents, answers):
                    missed.append(f"not found: {old!r} as {new!r}")
        check(not missed, "\n".join(missed))
finish()
