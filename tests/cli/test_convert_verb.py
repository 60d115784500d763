"""`beam convert`: files and pipes, what comes out, and what it says of what is wrong.

    test_convert_verb.py [path/to/beam]
"""
import json
import os
import pathlib
import pty
import subprocess
import sys
import tempfile

os.environ.pop("BEAM_TEST_RESULTS", None)  # whoever runs this script records the closing line
sys.dont_write_bytecode = True
TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "house"), str(TESTS / "ports")]
from cases import case, check, finish, skip  # noqa: E402
import kv  # noqa: E402

BEAM = os.path.realpath(sys.argv[1] if len(sys.argv) > 1 else os.environ["BEAM_PROGRAM"])
PATIENCE = 30  # seconds; only a hang is longer
OK, OTHER, USAGE, LIMIT = 0, 1, 2, 6

scratch = tempfile.TemporaryDirectory(prefix="beam-convert-")
folder = pathlib.Path(scratch.name)


def convert(*words, stdin=b"", code=OK, **options):
    """(standard output, standard error)"""
    command = [BEAM, "convert", *map(str, words)]
    if "stdin" not in options:
        options["input"] = stdin
    done = subprocess.run(command, stdout=options.pop("stdout", subprocess.PIPE), stderr=subprocess.PIPE,
                          timeout=PATIENCE, **options)
    errors = done.stderr.decode()
    check(done.returncode == code, f"{command} ended with {done.returncode}, not {code}: {errors}")
    return done.stdout, errors


def equal(got, wanted):
    check(got == wanted, f"got {got!r}, wanted {wanted!r}")


def has_xml():
    return b"xml" in subprocess.run([BEAM, "convert", "--from", "x", "--to", "x"], stderr=subprocess.PIPE,
                                    timeout=PATIENCE).stderr


VALUE = {"b": [1, -2, 2.5, None, True, "é\n"], "a": {}, "": 2**64 - 1}
TEXT = b' {"b": [1, -2, 2.5, null, true, "\\u00e9\\n"],\n "a": {}, "": 18446744073709551615}\n'

with case("convert goes from standard input to standard output"):
    equal(convert("--from", "json", "--to", "kv", stdin=TEXT)[0], kv.encode(VALUE))
    equal(convert("--to=json", "--from=kv", "-", stdin=kv.encode(VALUE))[0],
          '{"":18446744073709551615,"a":{},"b":[1,-2,2.5,null,true,"é\\n"]}'.encode())

with case("convert goes from a file to a file"):
    (folder / "in.json").write_bytes(TEXT)
    out, _ = convert("--from", "json", "--to", "msgpack", folder / "in.json", "--output", folder / "out.msgpack")
    equal(out, b"")
    equal((folder / "out.msgpack").read_bytes().hex(),
          "83a0cfffffffffffffffffa16180a1629601fecb4004000000000000c0c3a3c3a90a")
    equal(json.loads(convert("--from", "msgpack", "--to", "json", folder / "out.msgpack", "--output", "-")[0]), VALUE)
    left = sorted(path.name for path in folder.iterdir())
    check(left == ["in.json", "out.msgpack"], f"there is {left}")

with case("convert to and from xml"):
    if not has_xml():
        check(os.environ.get("CI") != "true", "CI must have expat")
        skip("built without expat")
    xml, _ = convert("--from", "json", "--to", "xml", stdin=b'{"a":[1,"<"]}')
    equal(xml, b'<kv><map><list k="a"><int>1</int><str>&lt;</str></list></map></kv>')
    equal(convert("--from", "xml", "--to", "json", stdin=xml)[0], b'{"a":[1,"<"]}')
    equal(convert("--from", "xml", "--to", "json", stdin=b'<p id="1">x</p>')[0],
          b'{"attr":{"id":"1"},"child":["x"],"name":"p"}')

with case("convert writes large integers for JavaScript when asked to"):
    equal(convert("--from", "json", "--to", "json", "--safe-int", stdin=b"[9007199254740993,1]")[0],
          b'[{"$int":"9007199254740993"},1]')
    convert("--from", "json", "--to", "kv", "--safe-int", stdin=b"1", code=USAGE)

with case("convert says at which byte and line a text is wrong"):
    for text, part in ((b'{"a":1,\n "b":tru}', "byte 16 (line 2, byte 9 of it): codec: the bytes are not of this format"),
                       (b'[1', "byte 2 (line 1, byte 3 of it): codec: the bytes end too early"),
                       (b'{"a":1,"a":2}', "byte 12 (line 1, byte 13 of it): a key comes twice"),
                       (b'[99999999999999999999]', "byte 1 (line 1, byte 2 of it): codec: a value that has no form"),
                       (b'', "byte 0 (line 1, byte 1 of it): codec: the bytes end")):
        out, errors = convert("--from", "json", "--to", "msgpack", stdin=text, code=OTHER)
        check(out == b"" and errors.startswith("beam: standard input: ") and part in errors, errors)
        check(errors.count("\n") == 1 and errors.endswith("from json to msgpack\n"), errors)
    _, errors = convert("--from", "msgpack", "--to", "json", stdin=b"\x92\x01\xd4\x00\x00", code=OTHER)
    check("byte 2: codec: a value that has no form there, from msgpack to json" in errors, errors)
    _, errors = convert("--from", "kv", "--to", "json", stdin=bytes(8), code=OTHER)
    check("byte 0: kv: unknown type" in errors, errors)

with case("convert leaves no half of a result"):
    (folder / "kept").write_bytes(b"as it was")
    (folder / "bad.json").write_bytes(b"[1,")
    _, errors = convert("--from", "json", "--to", "kv", folder / "bad.json", "--output", folder / "kept", code=OTHER)
    check(str(folder / "bad.json") in errors, errors)
    equal((folder / "kept").read_bytes(), b"as it was")

with case("convert refuses what is no command line"):
    for words in ((), ("--from", "json"), ("--to", "json"), ("--from", "json", "--to", "yaml"),
                  ("--from", "protobuf", "--to", "json"), ("--from", "json", "--to", "kv", "a", "b"),
                  ("--from", "json", "--to", "kv", "--what")):
        out, errors = convert(*words, code=USAGE)
        check(out == b"" and errors.startswith("beam: "), errors)
    out, _ = convert("--help")
    check(b"usage: beam convert" in out and b"--safe-int" in out, out)

with case("convert tells what is wrong with a file"):
    _, errors = convert("--from", "json", "--to", "kv", folder / "missing", code=OTHER)
    check("missing: No such file" in errors, errors)
    _, errors = convert("--from", "json", "--to", "kv", folder, code=OTHER)
    check("directory" in errors, errors)
    (folder / "good.json").write_bytes(b"1")
    _, errors = convert("--from", "json", "--to", "kv", folder / "good.json", "--output", folder / "no/such", code=OTHER)
    check("no/such" in errors, errors)
    with open("/dev/full", "wb") as full:
        convert("--from", "json", "--to", "kv", folder / "good.json", stdout=full, code=OTHER)

with case("convert takes long documents through pipes"):
    value = [{"n": i, "text": "x" * (i % 100)} for i in range(20000)]
    packed, _ = convert("--from", "json", "--to", "msgpack", stdin=json.dumps(value).encode())
    equal(json.loads(convert("--from", "msgpack", "--to", "json", stdin=packed)[0]), value)

with case("convert puts text on a terminal, with a line end, and bytes only when told to"):
    def on_terminal(*words, code=OK):
        terminal, end = pty.openpty()
        try:
            _, errors = convert(*words, folder / "good.json", stdout=end, code=code)
            os.close(end)
            end = -1
            try:
                return os.read(terminal, 1000), errors
            except OSError:  # nothing was written, and nobody can any more
                return b"", errors
        finally:
            os.close(terminal)
            if end >= 0:
                os.close(end)
    equal(on_terminal("--from", "json", "--to", "json")[0], b"1\r\n")
    out, errors = on_terminal("--from", "json", "--to", "msgpack", code=USAGE)
    check(out == b"" and "--output" in errors, errors)
    equal(on_terminal("--from", "json", "--to", "msgpack", "--output", "-")[0], b"\x01")

scratch.cleanup()
finish()
