"""What `beam kv` promises to a shell: the same answers from a server and from its file, nothing lost
that was acknowledged, nothing changed that is damaged.

    test_kv.py [path/to/beam]
"""
import asyncio
import contextlib
import errno
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

# The counts are those of the closing line; whoever runs this script records them.
os.environ.pop("BEAM_TEST_RESULTS", None)
sys.dont_write_bytecode = True
TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "house"), str(TESTS / "ports"), str(TESTS / "cli")]
import kv as documents  # noqa: E402
from cases import case, check, finish, skip  # noqa: E402
from shell import (ANSWERED, BEAM, LIMIT, NOT_FOUND, OK, OTHER, PATIENCE, UNAVAILABLE,  # noqa: E402
                   USAGE, beam, contains, equal, read_line, running, serving, without_call)
from strict import session as port  # noqa: E402

TORN = 10
VERBS = ("get", "put", "del", "scan", "watch", "dump", "load", "check", "compact")

folder = pathlib.Path(tempfile.mkdtemp(prefix="beam-kv-"))
count = 0


def kv(verb, *words, **options):
    return beam("kv", verb, *words, **options)


def fresh(suffix):
    """A name that nothing has."""
    global count
    count += 1
    return folder / f"{count}{suffix}"


def server(file="none", *words, **options):
    """A `beam serve kv`; its URL is that of the socket."""
    url = f"unix:{fresh('.sock')}"
    return url, serving("kv", "--listen", url, "--store", file, *words, **options)


def filled(keys):
    """A file of a store that was closed."""
    path = fresh(".kv")
    for key, value in keys.items():
        kv("put", path, key, json.dumps(value))
    return path


def checked(path, code=OK):
    return json.loads(kv("check", path, "--json", code=code).text)


def lines(result):
    return result.text.splitlines()


def wait_until(fn, what):
    until = time.monotonic() + PATIENCE
    while not fn():
        check(time.monotonic() < until, f"{what}: not within {PATIENCE} s")
        time.sleep(0.01)


def commands(text):
    """The block of commands in a text that begins with a server of a store."""
    return re.search(r"(?m)^    beam serve kv .*\n(?:^    .*\n)*", text).group(0)


def test_shown():
    readme = (TESTS.parent / "README.md").read_text()
    for name, text in (("README.md", readme), ("beam kv --help", beam("kv", "--help").text)):
        with case(f"the commands that {name} shows work"):
            place = fresh("")
            place.mkdir()
            script = commands(text).replace("/tmp/", f"{place}/").replace("    beam ", f"    {BEAM} ")
            # who types is slower than a server that starts
            script = re.sub(r"(?m)&$", f"&\nuntil [ -S {place}/kv.sock ]; do sleep 0.01; done",
                            script, count=1)
            script = "trap 'kill $(jobs -p) 2>/dev/null || :' EXIT\n" + script
            done = subprocess.run(["bash", "-e", "-m", "-c", script], stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                  timeout=PATIENCE)
            contains(done.stdout, "verdict=ok\n")
            equal(done.returncode, 0, done.stdout)

    with case("README.md and beam --help explain exit code 10"):
        contains(readme, "\n| 10 | ")
        contains(beam("--help").text, "\n    10  ")


def test_words():
    with case("beam kv --help lists the verbs, and each explains itself on stdout"):
        text = beam("kv", "--help").text
        for verb in VERBS:
            contains(text, f"beam kv {verb} ")
            own = kv(verb, "--help").text
            contains(own, f"usage: beam kv {verb}")
            contains(own, "\nexamples:\n")
            for line in own.splitlines():
                check(len(line) <= 100, f"kv {verb} --help: {line}")
        contains(beam("--help").text, "beam kv ")
        contains(beam("kv", code=USAGE).errors, "usage: beam kv VERB")

    file = fresh(".kv")
    wrong = {
        ("dance",): "no such verb",
        ("get", file): "a key",
        ("get", file, "a", "b"): "a key",
        ("get", file, "a", "--loud"): "`beam kv get --help`",
        ("get", file, "a", "--raw", "--json"): "only one",
        ("get", "ftp://example.org", "a"): "unix:/path",
        ("get", "", "a"): "a file or a URL",
        ("get", file, "a", "--service", "x"): "for a URL",
        ("put", file, "a"): "a value",
        ("put", file, "a", "1", "--sync", "often"): "each, batch or none",
        ("put", "unix:/nowhere", "a", "1", "--sync", "each"): "for a FILE",
        ("put", file, "a", "{1}"): "byte 1",
        ("put", file, "a", "hello"): "--string",
        ("put", file, "a", ""): "no JSON",
        ("put", file, "a", "1", "--kv"): "--kv goes with",
        ("put", file, "a", "1", "--seen", "-1"): "whole number",
        ("get", file, ""): "1 to 1024 bytes",
        ("put", file, "k" * 1025, "1"): "1 to 1024 bytes",
        ("del", file, "a", "\udcff"): "1 to 1024 bytes",
        ("del", file): "a key",
        ("scan",): "a file or URL",
        ("scan", file, "--kv", "--keys"): "neither",
        ("watch", file): "cannot be followed",
        ("watch", "unix:/nowhere", "--from", "7"): "16 hexadecimal digits",
        ("watch", "unix:/nowhere", "--from", "1122334455667788:"): "16 hexadecimal digits",
        ("watch", "unix:/nowhere", "--from", "112233445566778G:1"): "16 hexadecimal digits",
        ("watch", "unix:/nowhere", "p" * 1500): "longer than a key",
        ("dump",): "a file or URL",
        ("load",): "a file or URL",
        ("check",): "one file",
        ("check", "unix:/nowhere"): "name the file",
        ("compact", file, "x"): "a file or URL",
    }
    with case("a wrong command line is exit code 2, says how to write it, and makes no file"):
        for words, part in wrong.items():
            contains(beam("kv", *words, code=USAGE).errors, part)
        check(not file.exists(), f"{file} was made")

    with case("nobody at a URL is exit code 4"):
        for words in (("get", "a"), ("put", "a", "1"), ("del", "a"), ("scan",), ("watch",), ("dump",),
                      ("load",), ("compact",)):
            beam("kv", words[0], f"unix:{folder}/nobody", *words[1:], code=UNAVAILABLE)

    with case("a file that is not there is not made by those who only look or take away"):
        for words in (("get", "a"), ("del", "a"), ("scan",), ("dump",), ("check",), ("compact",)):
            contains(beam("kv", words[0], file, *words[1:], code=OTHER).errors, "No such file")
        check(not file.exists(), f"{file} was made")


# JSON as it is written, and the value it stands for in the Python port.
NESTED = "[" * 29 + "1" + "]" * 29
VALUES = ["null", "true", "false", "0", "-1", "9223372036854775807", "-9223372036854775808",
          "9223372036854775808", "18446744073709551615", "1.0", "-0.0", "1e+300", "5e-324",
          '{"$float":"nan"}', '{"$float":"inf"}', '{"$float":"-inf"}', '""', '"two words"', '"é"',
          '"\\u0000\\n"', '{"$bytes":""}', '{"$bytes":"/wA="}', "[]", "{}", '[[],[{}],""]',
          '{"":1,"a":{"b":[null]}}', '{"$$bytes":1}', NESTED]


def test_values():
    url, serve = server(fresh(".kv"))
    with serve:
        for target, place in ((url, "a server"), (fresh(".kv"), "a file")):
            with case(f"every kind of value goes into {place} and comes out the same"):
                for i, text in enumerate(VALUES):
                    kv("put", target, f"v/{i}", text)
                for i, text in enumerate(VALUES):
                    got = kv("get", target, f"v/{i}")
                    equal(got.text, text + "\n", f"{text} in {place}:")
                    document = kv("get", target, f"v/{i}", "--kv").out
                    equal(documents.encode(documents.decode(document)), document, text)
                    kv("put", target, "again", "-", "--kv", stdin=document)
                    equal(kv("get", target, "again").text, text + "\n", f"{text} as a document:")

            with case(f"texts and bytes go into {place} as they are"):
                kv("put", target, "t", "--string", "8080")
                equal(kv("get", target, "t").text, '"8080"\n')
                equal(kv("get", target, "t", "--raw").out, b"8080")
                kv("put", target, "t", "-", "--string", stdin="zwölf\n".encode())
                equal(kv("get", target, "t", "--raw").out, "zwölf\n".encode())
                kv("put", target, "t", "-", stdin=b' {"a": 1}\n')
                equal(kv("get", target, "t").text, '{"a":1}\n')
                content = os.urandom(300_000)
                (folder / "bytes").write_bytes(content)
                kv("put", target, "t", "--file", folder / "bytes")
                equal(kv("get", target, "t", "--raw").out == content, True, "bytes")
                contains(kv("get", target, "v/3", "--raw", code=OTHER).errors, "a number")
                contains(kv("put", target, "t", "--string", "\udcff", code=USAGE).errors, "UTF-8")
                contains(kv("put", target, "t", "-", "--kv", stdin=b"12345678", code=USAGE).errors,
                         "kv document")

            with case(f"a key that is not in {place} is exit code 8"):
                contains(kv("get", target, "no", code=NOT_FOUND).errors, "no such key")
                answer = json.loads(kv("get", target, "no", "--json", code=NOT_FOUND).text)
                equal((answer["code"], answer["message"]), ("NOT_FOUND", "no such key"))

            with case(f"what is told of {place} with --json counts its revisions"):
                a = json.loads(kv("put", target, "r", "1", "--json").text)
                b = json.loads(kv("put", target, "s", "1", "--json").text)
                equal((b["epoch"], b["rev"]), (a["epoch"], a["rev"] + 1))
                equal(json.loads(kv("get", target, "r", "--json").text),
                      {"epoch": a["epoch"], "now": b["rev"], "rev": a["rev"], "value": 1})

            with case(f"--seen keeps others' changes in {place}"):
                rev = json.loads(kv("put", target, "c", "1", "--json").text)["rev"]
                kv("put", target, "c", "2", "--seen", rev)
                for words in (("put", "c", "3"), ("del", "c")):
                    answer = kv(words[0], target, *words[1:], "--seen", rev, "--json", code=ANSWERED)
                    equal(json.loads(answer.text)["code"], "ABORTED")
                kv("put", target, "c", "4", "--seen", "0", code=ANSWERED)
                equal(kv("get", target, "c").text, "2\n")
                kv("del", target, "c")
                if target == url:  # a store that was opened anew knows no longer when it went
                    kv("put", target, "c", "4", "--seen", "0")

            with case(f"del takes several keys out of {place} at once, and minds none that is not there"):
                for key in ("d/1", "d/2", "d/3"):
                    kv("put", target, key, "1")
                kv("del", target, "d/1", "d/3", "d/4")
                equal(kv("scan", target, "d/", "--keys").text, "d/2\n")
                contains(kv("del", target, "d/2", "d/2", code=ANSWERED).errors, "twice")
                kv("put", target, "--", "-x", "-1")
                equal(kv("get", target, "--", "-x").text, "-1\n")
                kv("del", target, "--", "-x")


def test_codecs():
    url, serve = server()
    with serve:
        def ask(service, codec, body, **options):
            return beam("call", url, service, "--codec", codec, "--body", "-", stdin=body, **options)

        with case("beam call speaks to a store in another codec, and is answered in it"):
            answer = json.loads(ask("kv.put", "json", b'{"key":"a","value":[1,"x"]}').text)
            equal(answer["rev"], 1)
            answer = json.loads(ask("kv.get", "json", b'{"key":"a"}').text)
            equal((answer["rev"], answer["value"]), (1, [1, "x"]))
            packed = ask("kv.get", "msgpack", b"\x81\xa3key\xa1a").out
            contains(packed, b"\xa5value\x92\x01\xa1x")
            ask("kv.get", "json", b'{"key":', code=ANSWERED)
            ask("kv.get", "70000", b"x", code=ANSWERED)
            ask("kv.get", "kv", b'{"key":"a"}', code=ANSWERED)


def test_scan():
    keys = {f"k/{i:04}": i for i in range(2500)} | {"a=b": "c=d", "z": [1, None], "text": "two words"}
    file = fresh(".kv")
    kv("load", file, "-", stdin="".join(json.dumps({"key": k, "value": v}) + "\n"
                                        for k, v in keys.items()).encode())
    url, serve = server(file)
    with serve:
        for target, place in ((url, "a server"), (file, "a file that is in use")):
            with case(f"scan of {place} gives all keys in their order, and values"):
                got = [json.loads(line) for line in lines(kv("scan", target, "--json"))]
                equal([(line["key"], line["value"]) for line in got], sorted(keys.items()))
                equal(len(lines(kv("scan", target, "k/"))), 2500)
                equal(lines(kv("scan", target, "k/", "--limit", "1001", "--keys")),
                      [f"k/{i:04}" for i in range(1001)])
                equal(lines(kv("scan", target, "k/0007")), ["k/0007:=7"])
                equal(lines(kv("scan", target, "text")), ["text=two words"])
                equal(lines(kv("scan", target, "z")), ["z:=[1,null]"])
                equal(lines(kv("scan", target, "k/0007", "--keys", "--json")), ['{"key":"k/0007"}'])
                equal(documents.decode(kv("scan", target, "--kv").out), keys)
                equal(kv("scan", target, "nothing").out, b"")

        with case("control characters of a key or value do not reach the terminal"):
            kv("put", url, "e\x1b[2J", '"\x7f\u009b"')
            equal(kv("scan", url, "e").text, "e\\x1b[2J=\\x7f\\u009b\n")
            equal(kv("scan", url, "e", "--json").text,
                  '{"key":"e\\u001b[2J","value":"\\u007f\\u009b"}\n')
            equal(kv("get", url, "e\x1b[2J").text, '"\\u007f\\u009b"\n')

        with case("a reader that goes away early ends what it reads, quietly"):
            for words in (("scan", url), ("scan", file), ("dump", url, "--json"), ("dump", file)):
                with running("kv", *words) as process:
                    process.stdout.close()
                    process.stdout = open(os.devnull)
                    equal(process.stderr.read(), b"", words)
                    equal(process.wait(PATIENCE), -signal.SIGPIPE, words)

        with case("a standard output that is full is exit code 1, and is said"):
            for words in (("get", url, "z"), ("get", file, "z"), ("scan", url), ("scan", file),
                          ("watch", url), ("dump", url), ("dump", file, "--json"), ("check", file)):
                with open("/dev/full", "w") as out:
                    done = subprocess.run([BEAM, "kv", *map(str, words)], stdin=subprocess.DEVNULL,
                                          stdout=out, stderr=subprocess.PIPE, timeout=PATIENCE)
                check(done.returncode == OTHER and done.stderr,
                      f"{words}: exit code {done.returncode}, stderr {done.stderr!r}")


def test_in_use():
    file = filled({"a": 1})
    url, serve = server(file)
    with serve:
        with case("a file that a server has can be read"):
            kv("put", url, "a", "2")
            equal(kv("get", file, "a").text, "2\n")
            equal(kv("scan", file).text, "a:=2\n")
            equal(kv("dump", file, "--json").text, '{"key":"a","value":2}\n')
            state = checked(file)
            equal((state["in_use"], state["closed"], state["verdict"], state["rev"]),
                  (True, False, "ok", 2))

        with case("a file that a server has is changed by nobody else, who is told what to do"):
            for words in (("put", "a", "3"), ("del", "a"), ("load",), ("compact",)):
                errors = beam("kv", words[0], file, *words[1:], code=LIMIT).errors
                contains(errors, "in use")
                contains(errors, "URL")
            equal(kv("get", url, "a").text, "2\n")

    with case("it is free when the server has ended"):
        kv("put", file, "a", "3")
        state = checked(file)
        equal((state["in_use"], state["closed"], state["rev"]), (False, True, 3))

    with case("a symbolic link, a folder and what is no store are told, and left alone"):
        link, other = fresh(".kv"), fresh(".kv")
        link.symlink_to(file)
        other.write_text("not a store\n")
        for words in (("get", "a"), ("put", "a", "1"), ("check",), ("compact",)):
            contains(beam("kv", words[0], link, *words[1:], code=OTHER).errors, "symbolic link")
            contains(beam("kv", words[0], other, *words[1:], code=OTHER).errors, "not the file of")
            beam("kv", words[0], folder, *words[1:], code=OTHER)
        equal(other.read_text(), "not a store\n")
        equal(kv("get", file, "a").text, "3\n")

    with case("another service name, and one that is not there"):
        url = f"unix:{fresh('.sock')}"
        with serving("settings=kv", "--listen", url):
            kv("put", url, "a", "1", "--service", "settings")
            equal(kv("scan", url, "--service", "settings").text, "a:=1\n")
            equal(kv("dump", url, "--service", "settings", "--json").text,
                  '{"key":"a","value":1}\n')
            equal(lines(kv("watch", url, "--service", "settings"))[1:], ["1 + a:=1", "1 live"])
            for words in (("get", "a"), ("scan",), ("dump",), ("watch",), ("compact",)):
                beam("kv", words[0], url, *words[1:], code=NOT_FOUND)


    with case("what answers but is no store is told, and is exit code 1"):
        url = f"unix:{fresh('.sock')}"
        with serving("kv.get=echo", "kv.scan=echo", "kv.watch=clock", "--listen", url):
            for words in (("get", "a"), ("scan",), ("watch",)):
                check(beam("kv", words[0], url, *words[1:], code=OTHER).errors, words)


def scan_of(*pages, code=OK):
    """What `beam kv scan` says of an owner that gives these answers, and behind which keys it was asked."""
    at, asked, left = fresh(".sock"), [], list(pages)

    async def scan(message):
        asked.append(documents.decode(message.body).get("after"))
        entries, more, *after = left.pop(0)
        answer = {"epoch": "1122334455667788", "now": 1, "entries": entries, "more": more}
        return {}, documents.encode(answer | ({"after": after[0]} if after else {})), ()

    async def conversation():
        with contextlib.closing(port.listen(str(at))) as listener:
            accepting = asyncio.create_task(port.accept(listener, {"kv.scan": scan}))
            result = await asyncio.to_thread(kv, "scan", f"unix:{at}", code=code)
            await (await accepting).close()
        return result
    result = asyncio.run(conversation())
    equal(left, [], result.text)
    return result, asked


def test_pages():
    with case("scan goes on where an answer says, or else behind its last key"):
        result, asked = scan_of(({"a": 1, "b": 2}, True), ({"c": 3}, True, "k"), ({}, True, "ka"),
                                ({}, True, "m"), ({"n": 4}, False))
        equal(result.text, "a:=1\nb:=2\nc:=3\nn:=4\n")
        equal(asked, [None, "b", "k", "ka", "m"])

    with case("an owner that does not say where to go on, or back, is none"):
        for pages in ([({}, True)], [({"b": 1}, True), ({}, True)], [({}, True, "b"), ({}, True, "b")],
                      [({}, True, "bb"), ({}, True, "b")], [({}, True, 7)], [({}, True, "k" * 1025)],
                      [({"b": 1}, True), ({"a": 1}, True)]):
            contains(scan_of(*pages, code=OTHER)[0].errors, "not as a store does")


def test_watch():
    url, serve = server(fresh(".kv"))
    with serve:
        epoch = json.loads(kv("put", url, "cfg/a", "1", "--json").text)["epoch"]
        kv("put", url, "cfg/b", "--string", "x y")
        kv("put", url, "other", "1")

        with case("watch prints the state of a prefix, and ends"):
            equal(lines(kv("watch", url, "cfg/")),
                  [f"3 state {epoch}", "3 + cfg/a:=1", "3 + cfg/b=x y", "3 live"])
            got = [json.loads(line) for line in lines(kv("watch", url, "cfg/", "--json"))]
            equal([message["kind"] for message in got], ["head", "snap", "live"])
            equal(got[1]["set"], {"cfg/a": 1, "cfg/b": "x y"})

        with case("watch --follow goes on with what changes, until SIGINT"):
            with running("kv", "watch", url, "cfg/", "--follow") as process:
                for line in (f"3 state {epoch}", "3 + cfg/a:=1", "3 + cfg/b=x y", "3 live"):
                    equal(read_line(process.stdout), line + "\n")
                kv("put", url, "cfg/c", "[true]")
                equal(read_line(process.stdout), "4 + cfg/c:=[true]\n")
                kv("put", url, "other", "2")
                kv("del", url, "cfg/a", "cfg/c")
                equal(read_line(process.stdout), "6 - cfg/a\n")
                equal(read_line(process.stdout), "6 - cfg/c\n")
                process.send_signal(signal.SIGINT)
                equal(process.wait(PATIENCE), OK)
                equal((process.stdout.read(), process.stderr.read()), (b"", b""))

        with case("watch --from gives what has changed since then, or else the state"):
            equal(lines(kv("watch", url, "--from", f"{epoch}:4")),
                  [f"6 resumed {epoch}", "5 + other:=2", "6 - cfg/a", "6 - cfg/c"])
            equal(lines(kv("watch", url, "--from", f"{epoch}:6")), [f"6 resumed {epoch}"])
            equal(len(lines(kv("watch", url, "--from", f"{epoch}:6", "--json"))), 1)
            # nothing of the prefix has changed: a mark says so, when nothing else has come for a while
            equal(lines(kv("watch", url, "nothing/", "--from", f"{epoch}:4")),
                  [f"6 resumed {epoch}"])
            for place in (f"{'0' * 15}1:4", f"{epoch}:7"):
                equal(lines(kv("watch", url, "--from", place))[0], f"6 state {epoch}")
            with running("kv", "watch", url, "--from", f"{epoch}:5", "--follow", "--json") as process:
                equal(json.loads(read_line(process.stdout))["resume"], True)
                equal(json.loads(read_line(process.stdout)),
                      {"delete": ["cfg/a", "cfg/c"], "kind": "delta", "rev": 6})
                kv("put", url, "other", "3")
                equal(json.loads(read_line(process.stdout)),
                      {"kind": "delta", "rev": 7, "set": {"other": 3}})

        with case("a watch that nobody reads for long is told what it has missed"):
            with running("kv", "watch", url, "slow", "--follow") as process:
                for line in ("state", "live"):
                    contains(read_line(process.stdout), line)
                for i in range(20):
                    kv("put", url, "slow", "-", "--string", stdin=b"%06d" % i * 100_000)
                kv("put", url, "slow", "1")
                skipped, line = 0, ""
                with os.fdopen(os.dup(process.stdout.fileno()), "rb") as out:
                    while not line.endswith("+ slow:=1\n"):
                        line = out.readline().decode()
                        check(line, "the watch has ended")
                        if "skipped=" in line:
                            skipped += int(line.split("=")[1])
                check(5 < skipped < 21, f"{skipped} skipped")

        with case("a reader that goes away ends a watch, quietly"):
            with running("kv", "watch", url, "--follow") as process:
                read_line(process.stdout)
                process.stdout.close()
                process.stdout = open(os.devnull)
                wait_until(lambda: kv("put", url, "other", "4") and process.poll() is not None,
                           "the end of a watch that nobody reads")
                equal((process.returncode, process.stderr.read()), (-signal.SIGPIPE, b""))

        process = subprocess.Popen([BEAM, "kv", "watch", url, "--follow"], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, bufsize=0)
        read_line(process.stdout)
    with case("the end of the server is exit code 4 of a watch"):
        out, errors = process.communicate(timeout=PATIENCE)
        equal(process.returncode, UNAVAILABLE, errors)
        contains(errors.decode(), "kv.watch")


def test_copies():
    keys = {f"k/{i}": {"n": i, "text": "x" * (i % 300)} for i in range(3000)} | {"big": "y" * 700_000}
    text = "".join(json.dumps({"key": k, "value": v}) + "\n" for k, v in keys.items()).encode()
    file = fresh(".kv")
    with case("load takes lines from standard input, in transactions of a sensible size"):
        errors = kv("load", file, stdin=text + b"\n   \n").errors
        contains(errors, f"keys loaded: {len(keys)}, in transactions: ")
        transactions = int(errors.split()[-1])
        check(4 <= transactions <= 12, f"{transactions} transactions")
        state = checked(file)
        equal((state["keys"], state["rev"]), (len(keys), transactions))
        got = {line["key"]: line["value"]
               for line in map(json.loads, lines(kv("scan", file, "--json")))}
        check(got == keys, "not what was loaded")

    url, serve = server(file)
    with serve:
        digest = checked(file)["digest"]
        with case("dump | load gives the same digest, from a server and a file, both ways"):
            for source in (url, file):
                for how in ((), ("--json",)):
                    copy, name = kv("dump", source, *how).out, fresh(".kv")
                    kv("load", name, "-", stdin=copy)
                    equal(checked(name)["digest"], digest, f"dump {source} {how}:")
                    (folder / "copy").write_bytes(copy)
                    name = fresh(".kv")
                    kv("load", name, folder / "copy")
                    equal(checked(name)["digest"], digest, f"dump {source} {how} by name:")

        with case("a dump is itself the file of a store, of the same revision and another epoch"):
            for source in (url, file):
                copy = fresh(".kv")
                copy.write_bytes(kv("dump", source).out)
                was, state = checked(file), checked(copy)
                equal((state["digest"], state["rev"], state["closed"]), (digest, was["rev"], True))
                check(state["epoch"] != was["epoch"], "one epoch for two histories")
                second, serve_second = server(copy)
                with serve_second:
                    equal(kv("get", second, "k/7").text, '{"n":7,"text":"xxxxxxx"}\n')
                    kv("put", second, "k/7", "1")
                equal(checked(copy)["rev"], was["rev"] + 1)

        with case("load into a server, by its URL"):
            second, serve_second = server(fresh(".kv"))
            with serve_second:
                kv("load", second, "-", stdin=kv("dump", url).out)
                equal(kv("dump", second, "--json").out == kv("dump", url, "--json").out, True)

        with case("a dump that was cut short is not loaded, or what is missing is told"):
            copy = kv("dump", url).out
            for part in (len(copy) - 8, len(copy) // 2, 100):
                name, complete = fresh(".kv"), part > len(copy) - 24
                done = kv("load", name, "-", stdin=copy[:part], code=TORN if complete else OTHER)
                contains(done.errors, "something torn" if complete else "damaged")
                equal(name.exists(), complete)
                if complete:
                    equal(checked(name)["digest"], digest)

    with case("a copy that is torn is loaded as far as it goes, and that is exit code 10"):
        whole = filled({"a": 1, "b": 2, "c": 3})
        last = [at for at, kind in records(whole)[0] if kind == DELTA][-1]
        for how in ("by name", "on standard input"):
            name, copy = fresh(".kv"), fresh(".kv")
            copy.write_bytes(whole.read_bytes()[:last + 16])
            done = (kv("load", name, copy, code=TORN) if how == "by name" else
                    kv("load", name, "-", stdin=copy.read_bytes(), code=TORN))
            contains(done.errors, f" bytes at offset {last};")
            contains(done.errors, "revision 2")
            contains(done.errors, "keys loaded: 2")
            equal(kv("scan", name).text, "a:=1\nb:=2\n", how)

    with case("a copy that is damaged before its first key is not loaded, and makes nothing"):
        first = [at for at, kind in records(whole)[0] if kind == DELTA][0]
        content = bytearray(whole.read_bytes())
        content[first + 20] ^= 1
        for how in ("by name", "on standard input"):
            name, copy = fresh(".kv"), fresh(".kv")
            copy.write_bytes(content)
            done = (kv("load", name, copy, code=OTHER) if how == "by name" else
                    kv("load", name, "-", stdin=bytes(content), code=OTHER))
            contains(done.errors, "damaged")
            check(not name.exists(), f"{name} was made")

    with case("what cannot be loaded makes no file, and leaves one that is there as it was"):
        bad = {"no line": (b'{"key":"a","value":1}\n{', USAGE), "too long a value": (
            b'{"key":"a","value":"' + b"x" * (17 << 20) + b'"}\n', LIMIT)}
        for what, (text, code) in bad.items():
            name, kept = fresh(".kv"), filled({"k": 1})
            before = checked(kept)
            kv("load", name, stdin=text, code=code)
            check(not name.exists(), f"{name} was made: {what}")
            kv("load", kept, stdin=text, code=code)
            equal(checked(kept)["digest"], before["digest"], what)
        name = fresh(".kv")
        kv("load", name, "/nonexistent", code=OTHER)
        kv("load", name, folder, code=OTHER)
        check(not name.exists(), f"{name} was made")
        kv("load", name, stdin=b"")  # of no keys comes a store without any
        equal((checked(name)["keys"], checked(name)["verdict"]), (0, "ok"))

    with case("a file that somebody else makes while load looks whether there is one stays"):
        if os.uname().machine not in ("x86_64", "aarch64"):
            skip("the number of access(2) is not known here")

        def before_it_was_made():
            without_call({"x86_64": 21, "aarch64": 48}[os.uname().machine], errno.ENOENT)
        name = filled({"k": 1})
        before = checked(name)
        kv("load", name, stdin=bad["too long a value"][0], code=LIMIT, preexec_fn=before_it_was_made)
        check(name.exists(), "a file with what somebody else had put is gone")
        equal(checked(name)["digest"], before["digest"])
        kv("del", name, "k")
        kv("load", name, stdin=bad["too long a value"][0], code=LIMIT, preexec_fn=before_it_was_made)
        check(name.exists(), "a file whose last revision has no keys is gone")

    with case("a copy that is given by a link is what the link leads to"):
        digest = checked(whole)["digest"]
        link, far, lines_link, text = fresh(".kv"), fresh(".kv"), fresh(".link"), fresh(".lines")
        link.symlink_to(whole.name)
        far.symlink_to(link)
        text.write_bytes(kv("dump", whole, "--json").out)
        lines_link.symlink_to(text)
        for copy in (link, far, lines_link):
            name = fresh(".kv")
            kv("load", name, copy)
            equal(checked(name)["digest"], digest, copy)
        for source in (whole, text):
            name = fresh(".kv")
            with open(source, "rb") as stdin:
                kv("load", name, "/dev/stdin", stdin_file=stdin)
            equal(checked(name)["digest"], digest, f"/dev/stdin: {source}")
        gone, name = fresh(".kv"), fresh(".kv")
        gone.write_bytes(whole.read_bytes())
        with open(gone, "rb") as stdin:
            gone.unlink()  # proc(5) gives it a name that another file can have
            shutil.copy(filled({"other": 1}), f"{gone} (deleted)")
            kv("load", name, "/dev/stdin", stdin_file=stdin)
        equal(checked(name)["digest"], digest, "/dev/stdin without a name")
        url, serve = server(whole)  # what it does not have yet is no torn tail: it is in use
        with serve:
            kv("put", url, "d", "4")
            with open(whole, "r+b") as growing:
                growing.seek(checked(whole)["length"])
                growing.write(b"@torn")
            name = fresh(".kv")
            kv("load", name, link)
            equal(kv("scan", name).text, "a:=1\nb:=2\nc:=3\nd:=4\n")

    with case("a copy that is a folder is told as one"):
        for words, options in (((folder,), {}), (("-",), {"stdin_file": os.open(folder, os.O_RDONLY)})):
            name = fresh(".kv")
            errors = kv("load", name, *words, code=OTHER, **options).errors
            contains(errors, "Is a directory")
            check("line 1" not in errors, errors)
            check(not name.exists(), f"{name} was made")
            if options:
                os.close(options["stdin_file"])

    with case("a named pipe is read once, be it lines or the file of a store"):
        for content in (kv("dump", whole).out, kv("dump", whole, "--json").out):
            name, pipe = fresh(".kv"), fresh(".fifo")
            os.mkfifo(pipe)
            with running("kv", "load", name, pipe) as process:
                with open(pipe, "wb") as out:
                    out.write(content)
                equal(process.wait(PATIENCE), OK, process.stderr.read())
            equal(checked(name)["digest"], checked(whole)["digest"])

    with case("what finds no memory is exit code 6: a line, what it says, and a value"):
        def little_memory():
            resource.setrlimit(resource.RLIMIT_AS, (200 << 20, 200 << 20))
        try:
            subprocess.run([BEAM, "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                           preexec_fn=little_memory, check=True, timeout=PATIENCE)
        except subprocess.SubprocessError:
            skip("this program needs more memory as it is, under a sanitizer for example")
        name = fresh(".kv")
        line = b'{"key":"a","value":1}\n'
        for text in (line + b" " * (210 << 20) + line, line + b'{"key":"b","value":[' + b"1," * (20 << 20) +
                     b"1]}\n"):
            errors = kv("load", name, stdin=text, code=LIMIT, preexec_fn=little_memory).errors
            contains(errors, "line 2: ")
            contains(errors, "memory")
            check("a line is" not in errors, errors)
            check(not name.exists(), f"{name} was made")
        errors = kv("put", name, "a", "-", stdin=b"[" + b"1," * (20 << 20) + b"1]", code=LIMIT,
                    preexec_fn=little_memory).errors
        contains(errors, "memory")
        check("no JSON" not in errors, errors)

    with case("a file for put that cannot be read is no wrong command line: exit code 1"):
        name = fresh(".kv")
        for words in (("--file", "/nonexistent"), ("--file", folder), ("--file", "/nonexistent", "--kv")):
            check(kv("put", name, "a", *words, code=OTHER).errors, words)
        check(not name.exists(), f"{name} was made")

    with case("of a key that comes twice the last value is kept"):
        name = fresh(".kv")
        kv("load", name, stdin=b'{"key":"a","value":1}\n{"key":"b","value":2}\n'
           b'{"key":"a","value":3}\n{"value":4,"key":"c"}')
        equal(kv("scan", name).text, "a:=3\nb:=2\nc:=4\n")

    with case("a line that is none is told by its number, and what was before it can stay"):
        for line, part in ((b"{", "JSON|codec|end"), (b"[1]", "no key"), (b'{"key":1,"value":1}', "no key"),
                           (b'{"key":"a"}', "no value"), (b'{"key":"","value":1}', "1 to 1024"),
                           (b'{"key":"a","value":1} x', "codec")):
            errors = kv("load", fresh(".kv"), stdin=b'{"key":"z","value":1}\n' + line + b"\n",
                        code=USAGE).errors
            contains(errors, "line 2: ")
            check(any(word in errors for word in part.split("|")), errors)
        contains(kv("load", fresh(".kv"), "/nonexistent", code=OTHER).errors, "No such file")

    with case("an empty store is copied, too"):
        name, copy = filled({"a": 1}), fresh(".kv")
        kv("del", name, "a")
        equal(kv("dump", name, "--json").out, b"")
        copy.write_bytes(kv("dump", name).out)
        equal((checked(copy)["keys"], checked(copy)["digest"]), (0, checked(name)["digest"]))

    with case("a dump is not for a terminal"):
        controller, terminal = os.openpty()
        done = subprocess.run([BEAM, "kv", "dump", file], stdin=subprocess.DEVNULL, stdout=terminal,
                              stderr=subprocess.PIPE, timeout=PATIENCE)
        os.close(terminal)
        os.close(controller)
        equal(done.returncode, USAGE)
        contains(done.stderr.decode(), "--json")


def records(path):
    """Where each record of a file begins, and its kind (docs/spec/kv.md R1)."""
    bytes, at, found = path.read_bytes(), 0, []
    while at + 24 <= len(bytes) and any(bytes[at:at + 8]):
        found.append((at, bytes[at + 7]))
        at += 8 + int.from_bytes(bytes[at:at + 4], "little")
    return found, at


DELTA = 4


def kill(process):
    process.kill()
    process.wait()


def wait_until_free(file):
    """The kernel takes the ring of a process that was killed apart some milliseconds after its end."""
    wait_until(lambda: not checked(file)["in_use"], "the lock of a server that was killed")


def test_killed():
    with case("a server that is killed loses nothing that was acknowledged, and its watchers go on"):
        file = fresh(".kv")
        url, serve = server(file, code=-signal.SIGKILL)
        with serve as process:
            for i in range(50):
                told = json.loads(kv("put", url, f"k/{i:02}", str(i), "--json").text)
            kill(process)
        wait_until_free(file)
        state = checked(file)
        equal((state["verdict"], state["keys"], state["closed"], state["new_epoch"], state["epoch"]),
              ("ok", 50, False, False, told["epoch"]))
        url, serve = server(file)
        with serve:
            equal(len(lines(kv("scan", url))), 50)
            equal(lines(kv("watch", url, "--from", f"{told['epoch']}:49")),
                  [f"50 resumed {told['epoch']}", "50 + k/49:=49"])
            equal(json.loads(kv("put", url, "k/50", "50", "--json").text)["rev"], 51)

    with case("a server that told of changes early and is killed begins another epoch"):
        file = fresh(".kv")
        url, serve = server(file, "--sync", "batch", code=-signal.SIGKILL)
        with serve as process:
            told = json.loads(kv("put", url, "a", "1", "--json").text)
            kill(process)
        wait_until_free(file)
        state = checked(file)
        equal((state["verdict"], state["new_epoch"]), ("ok", True))
        url, serve = server(file, "--sync", "batch")
        with serve:
            now = json.loads(kv("get", url, "a", "--json").text)
            check(now["epoch"] != told["epoch"], f"the epoch is still {now['epoch']}")
            contains(kv("watch", url, "--from", f"{told['epoch']}:1").text, "1 state ")
        equal(checked(file)["new_epoch"], False)


def test_written():
    with case("a file is sound whenever one looks at it while it is written, and never goes back"):
        file = fresh(".kv")
        lines = "".join(f'{{"key":"k/{i % 700}","value":"{i:0500}"}}\n' for i in range(20_000))
        (folder / "lines").write_text(lines)
        url, serve = server(file, "--sync", "none")
        looks = rev = 0
        with serve:
            while looks < 20:
                with running("kv", "load", url, folder / "lines") as process:
                    while process.poll() is None:
                        result = kv("check", file, "--json", code=None)
                        state = json.loads(result.text)
                        equal((state["verdict"], state["in_use"]), ("ok", True),
                              f"look {looks}: {result}")
                        check(state["rev"] >= rev, f"revision {state['rev']} after {rev}")
                        looks, rev = looks + 1, state["rev"]
                    equal(process.returncode, OK, process.stderr.read())


def test_torn():
    with case("a torn tail is told, read around, and cut by the next one who writes"):
        whole = filled({"a": 1, "b": 2})
        kv("put", whole, "c", '"' + "x" * 500 + '"')
        found, _ = records(whole)
        last = [at for at, kind in found if kind == DELTA][-1]
        for cut in (last + 4, last + 16, last + 100, last + 512):
            file = fresh(".kv")
            file.write_bytes(whole.read_bytes()[:cut])
            result = kv("check", file, "--json", code=TORN)
            state = json.loads(result.text)
            equal((state["verdict"], state["rev"], state["keys"], state["offset"]),
                  ("torn", 2, 2, last), f"cut at {cut}:")
            check(0 < state["length_cut"] <= cut - last, f"{state}")
            contains(result.errors, f"at offset {last}")
            contains(kv("check", file, code=TORN).text, "verdict=torn\n")
            equal(kv("scan", file).text, "a:=1\nb:=2\n")
            check(file.stat().st_size == cut, "looking has changed it")
            contains(kv("put", file, "d", "4").errors, "torn tail")
            equal(kv("scan", file).text, "a:=1\nb:=2\nd:=4\n")
            equal(checked(file)["verdict"], "ok")

    with case("a file that is damaged where it was safe is told, read as far as it goes, and not changed"):
        whole = filled({"a": 1, "b": 2, "c": 3})
        found, end = records(whole)
        second = [at for at, kind in found if kind == DELTA][1]
        for byte in (0, 8, 20, 33):
            file = fresh(".kv")
            content = bytearray(whole.read_bytes())
            content[second + byte] ^= 1
            file.write_bytes(content)
            result = kv("check", file, "--json", code=OTHER)
            state = json.loads(result.text)
            equal((state["verdict"], state["rev"], state["keys"], state["offset"]),
                  ("damaged", 1, 1, second), f"byte {byte}:")
            contains(result.errors, f"at offset {second}")
            contains(result.errors, "kv dump")
            for words, text in ((("scan",), "a:=1\n"), (("get", "a"), "1\n"), (("get", "b"), ""),
                                (("scan", "no"), ""), (("scan", "--limit", "1"), "a:=1\n"),
                                (("dump", "--json"), '{"key":"a","value":1}\n')):
                done = kv(words[0], file, *words[1:], code=OTHER)
                equal(done.text, text, words)
                contains(done.errors, "damaged at offset")
            for words in (("put", "d", "4"), ("del", "a"), ("compact",)):
                contains(beam("kv", words[0], file, *words[1:], code=OTHER).errors, "damaged")
            contains(kv("load", fresh(".kv"), file, code=OTHER).errors, "damaged")
            check(file.read_bytes() == content, "it was changed")
            copy = fresh(".kv")
            copy.write_bytes(kv("dump", file, code=OTHER).out)
            equal(checked(copy)["verdict"], "ok")
            equal(kv("scan", copy).text, "a:=1\n")

    with case("a file that is damaged before it has a state holds nothing"):
        for byte in (30, 80):
            file = fresh(".kv")
            content = bytearray(whole.read_bytes())
            content[byte] ^= 1
            file.write_bytes(content)
            result = kv("check", file, "--json", code=OTHER)
            equal(json.loads(result.text)["verdict"], "damaged")
            contains(result.errors, "nothing can be read")
            contains(kv("get", file, "a", code=OTHER).errors, "damaged")


def test_compact():
    def overwritten(target):
        for _ in range(5):
            kv("load", target, stdin="".join(f'{{"key":"k/{i}","value":"{"x" * 100}"}}\n'
                                             for i in range(200)).encode())
    with case("compact makes a file shorter, and keeps state, revision and epoch"):
        file = fresh(".kv")
        overwritten(file)
        before = checked(file)
        answer = json.loads(kv("compact", file, "--json").text)
        after = checked(file)
        for key in ("digest", "rev", "epoch", "keys"):
            equal(after[key], before[key], key)
        check(after["length"] < before["length"] // 4, f"{before} {after}")
        equal(answer["rev"], before["rev"])
        check(answer["after"] < answer["before"], f"{answer}")
        contains(kv("compact", file).text, " bytes before, ")

    with case("compact by the URL of a server, which goes on"):
        file = fresh(".kv")
        url, serve = server(file)
        with serve:
            overwritten(url)
            before = checked(file)
            with running("kv", "watch", url, "--follow", "--json") as process:
                equal(json.loads(read_line(process.stdout))["kind"], "head")
                kv("compact", url)
                kv("put", url, "last", "1")
                while json.loads(read_line(process.stdout)).get("set") != {"last": 1}:
                    pass
            after = checked(file)
            equal((after["epoch"], after["rev"]), (before["epoch"], before["rev"] + 1))
            check(after["length"] < before["length"] // 4, f"{before} {after}")

    with case("a store in memory has no file to be made shorter"):
        url, serve = server()
        with serve:
            kv("put", url, "a", "1")
            contains(kv("compact", url, code=ANSWERED).errors, "no file")

    with case("nothing is left beside the files"):
        equal(sorted(name.name for name in folder.iterdir() if ".new" in name.name), [])


try:
    test_shown()
    test_words()
    test_values()
    test_codecs()
    test_scan()
    test_pages()
    test_in_use()
    test_watch()
    test_copies()
    test_killed()
    test_written()
    test_torn()
    test_compact()
finally:
    shutil.rmtree(folder, ignore_errors=True)
finish()
