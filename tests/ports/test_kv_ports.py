"""kv documents in C, Python and JavaScript: every vector, what writers must refuse, and some thousand random documents
(differ.py).

    test_kv_ports.py        BEAM_BUILD_DIR names the folder where kv_answers was built
"""
import json
import os
import pathlib
import shutil
import sys

# The counts are those of the closing line; whoever runs this script records them.
os.environ.pop("BEAM_TEST_RESULTS", None)
sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "house"))
from cases import ROOT, case, check, finish, run  # noqa: E402
import differ  # noqa: E402
import kv  # noqa: E402

BUILD = pathlib.Path(os.environ.get("BEAM_BUILD_DIR", ROOT / "build/dev"))
LINES_MAX = {"kv.py": 60, "kv.mjs": 80}

if not shutil.which("node"):
    print("node is not installed (Debian: nodejs)")
    sys.exit(1 if os.environ.get("CI") == "true" else 77)


def expected(vector):
    return (vector["error"] or vector["json"] + "\0").encode() + (b"" if vector["error"] else bytes.fromhex(vector["hex"]))


def ask(port, documents):
    port.ask(documents)
    return port.answers()


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

with case(f"{differ.CI_CASES} random documents are the same in all, and of every kind"):
    judged = differ.Differ(three)
    done = judged.run(1, differ.CI_CASES)
    check(not judged.finds and done == differ.CI_CASES, "\n".join(judged.finds))
    kinds = {"accepted"} | {vector["error"] for vector in vectors if vector["error"]}
    check(set(judged.verdicts) == kinds, f"only {sorted(judged.verdicts)}")
    check(judged.verdicts["accepted"] > differ.CI_CASES / 5, f"only {judged.verdicts['accepted']} are accepted")
for name, port in three.items():
    with case(f"{name} ends when nothing more comes"):
        status = port.close()
        check(status == 0, f"ended with {status}")

finish()
