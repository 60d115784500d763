"""The random documents of differ.py are worth something only if they find a port that is wrong: each of these changes,
one in a copy of a port at a time, must be found by those that CI tries.

    kv_mutants.py        BEAM_BUILD_DIR names the folder where kv_answers and the library were built
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

BUILD = pathlib.Path(os.environ.get("BEAM_BUILD_DIR", ROOT / "build/dev"))

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
        ("depth + top == BEAM_KV_DEPTH_MAX", "depth + top == BEAM_KV_DEPTH_MAX + 1"),
        ("BM_UNLIKELY(!padding_is_zero(pos, e))", "false"),
        ("int r = bm_entry_read(pos, (uint64_t)(in->end - pos), e);", "int r = 0; *e = bm_entry_at(pos);"),
        ("e->key_len == 0 ? 0 : -BEAM_EKV_KEY", "0"),
        ("before.key_len) > 0;", "before.key_len) >= 0;"),
        ("(prefix & BM_UTF8_HIGH_BITS) != 0 || e->key_len > 8", "e->key_len > 8"),
        ("&& bits != BM_ENTRY_NAN_BITS", ""),
        ("? 0 : -BEAM_EKV_UTF8;", "? 0 : 0;"),
        ("root.len < len", "false"),
    ]),
}



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
        return any(port.ask(documents[at:at + differ.BATCH]) or port.answers() != answers[at:at + differ.BATCH]
                   for at in range(0, len(documents), differ.BATCH))
    except (RuntimeError, OSError):                     # it ended: a crash, or a sanitizer
        return True
    finally:
        port.process.kill()
        port.process.communicate()


documents = [differ.document(seed) for seed in range(1, 1 + differ.CI_CASES)]
port = differ.Port(*differ.commands(BUILD)["C"])
port.ask(documents)
answers = port.answers()
port.close()
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
