"""`beam` over networks: https: and its like, certificates, tokens, proxies, and what is said when one is
wrong.

    test_network.py [path/to/beam]
"""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

os.environ.pop("BEAM_TEST_RESULTS", None)  # whoever runs this script records the closing line
sys.dont_write_bytecode = True
TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "house"), str(TESTS / "cli")]
from cases import case, check, finish, skip  # noqa: E402
from shell import (BEAM, LIMIT, OK, OTHER, PATIENCE, PERMISSION, UNAVAILABLE, USAGE, beam, contains, equal,  # noqa: E402
                   read_line, running)

scratch = tempfile.TemporaryDirectory(prefix="beam-network-")
folder = pathlib.Path(scratch.name)
CERT = folder / "cert"
OTHERS = folder / "others"
beam("cert", CERT, "--client", "uri:spiffe://example/ada")
beam("cert", OTHERS, "--name", "elsewhere.example")
SERVER = ["--cert", CERT / "server.pem", "--key", CERT / "server.key"]
CLIENT = ["--cert", CERT / "client.pem", "--key", CERT / "client.key"]
CA = ["--ca", CERT / "ca.pem"]
GOOD = "a-token-that-nobody-guesses.0123456789=="


def tokens(text, name="tokens", mode=0o600):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


ANYWHERE = "http://127.0.0.1:0"
FILE = tokens(f"# who may ask\n\nada {GOOD}\n\teve   another-token-of-hers-0123 \r\n")

with case("a server over a network is told what it lacks before it listens"):
    serve = ("serve", "echo", "--listen")
    wrong = {
        (*serve, "https://127.0.0.1:0"): "`beam cert DIR`",
        (*serve, "wss://127.0.0.1:0", "--insecure-anonymous"): "--cert FILE and --key FILE",
        (*serve, ANYWHERE): "--insecure-anonymous",
        (*serve, "ws://127.0.0.1:0"): "--token-file FILE",
        (*serve, "https://127.0.0.1:0", *SERVER): "--client-ca FILE",
        # http: has no certificates, so that nobody is known there by one
        (*serve, "https://127.0.0.1:0", "--listen", ANYWHERE, *SERVER, "--client-ca", CERT / "ca.pem"):
            "http://127.0.0.1:0 would serve nobody",
        (*serve, "https://127.0.0.1:0", "--cert", CERT / "server.pem", "--insecure-anonymous"): "go together",
        (*serve, ANYWHERE, *SERVER, "--insecure-anonymous"): "--cert is for https:",
        (*serve, ANYWHERE, "--trust-proxy", "127.0.0.1"): "go together",
        (*serve, ANYWHERE, "--identity-header", "x-user", "--insecure-anonymous"): "go together",
        (*serve, "unix:/tmp/x.sock", "--token-file", FILE): "--token-file is for https:",
        (*serve, "unix:/tmp/x.sock", "--insecure-anonymous"): "--insecure-anonymous is for https:",
        (*serve, "unix:/tmp/x.sock", "--address-connections", "9"): "--address-connections is for https:",
        (*serve, "unix:/tmp/x.sock", "--address-rate", "9"): "--address-rate is for https:",
    }
    for words, part in wrong.items():
        contains(beam(*words, code=USAGE).errors, part)

with case("a client is told which of its options do not go with the URL"):
    wrong = {
        ("call", "unix:/tmp/x.sock", "echo", *CA): "--ca is for https:",
        ("watch", "unix:/tmp/x.sock", "clock", "--token", GOOD): "--token is for https:",
        ("call", "http://127.0.0.1:1", "echo", *CA): "has no TLS",
        ("call", "ws://127.0.0.1:1", "echo", "--server-name", "x"): "has no TLS",
        ("call", "https://127.0.0.1:1", "echo", "--cert", "x"): "go together",
        ("call", "https://127.0.0.1:1", "echo", "--key", "x"): "go together",
        ("call", "https://127.0.0.1:1", "echo", "--token", "x", "--token-file", FILE): "not both",
        ("call", "https://127.0.0.1:1", "echo", "--token", "two words"): "--token: a token is",
        ("call", "https://127.0.0.1:1", "echo", "--token", "x" * 8193): "--token: a token is",
        ("kv", "get", "https://127.0.0.1:1", "a", "--token", ""): "--token: a token is",
        ("kv", "get", folder / "x.kv", "a", *CA): "--ca is for https:",
        ("kv", "get", "http+unix:/tmp/x.sock", "a", *CA): "has no TLS",
    }
    for words, part in wrong.items():
        contains(beam(*words, code=USAGE).errors, part)

with case("a file of tokens: which line is wrong, and how"):
    wrong = {
        "": "there is no token in it",
        "# ada x\n\n": "there is no token in it",
        f"ada {GOOD}\nada\n": "line 2: please write NAME TOKEN",
        f"ada {GOOD} x": "line 1: please write NAME TOKEN",
        "ada tök": "line 1: a token is",
        "ada x=y": "line 1: a token is",
        f"ada {'x' * 8193}": "line 1: a token is",
        f"{'a' * 250} {GOOD}": "line 1: a name has 249",
        f"a\x01 {GOOD}": "line 1: a name has no control",
        f"ada {GOOD}\neve {GOOD}\n": "line 2: this token is another name's",
        "".join(f"n{i} {GOOD[:-2]}{i}\n" for i in range(4097)): "line 4097: more than 4096",
        b"ada x\0y\n": "this is no text",
        b"# " + b"x" * (1 << 20): "File too large",
    }
    for text, part in wrong.items():
        result = beam("serve", "echo", "--listen", ANYWHERE, "--token-file", tokens(text, "wrong"), code=USAGE)
        contains(result.errors, part)
        check(GOOD not in result.errors, "a token is told")
    contains(beam("serve", "echo", "--listen", ANYWHERE, "--token-file", folder / "none", code=USAGE).errors,
             "No such file")
    contains(beam("call", "http://127.0.0.1:1", "echo", "--token-file", folder / "none", code=USAGE).errors,
             "No such file")
    contains(beam("call", "http://127.0.0.1:1", "echo", "--token-file", tokens("# x\n", "wrong"), code=USAGE).errors,
             "there is no token in it")

with case("a file of tokens that others can read, or with short ones, is a warning"):
    wrong = tokens(f"ada {GOOD}\neve x\nada\n", "wrong", 0o644)
    errors = beam("serve", "echo", "--listen", ANYWHERE, "--token-file", wrong, code=USAGE).errors
    contains(errors, "warning: ")
    contains(errors, "anybody on this machine can read these tokens")
    contains(errors, "line 2: a token of 1 characters can be guessed")
    wrong.chmod(0o640)
    check("anybody" not in beam("serve", "echo", "--listen", ANYWHERE, "--token-file", wrong, code=USAGE).errors,
          "a warning although others cannot read it")


@contextlib.contextmanager
def serving(*words, warnings=()):
    """A `beam serve` over networks; the URLs that it says it listens at, ports and all."""
    listens = sum(1 for word in words if word == "--listen")
    process = subprocess.Popen([BEAM, "serve", *map(str, words)], stdin=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, bufsize=0)
    try:
        urls, said = [], ""
        while len(urls) < listens:
            line = read_line(process.stderr)
            said += line
            if not line:
                break
            found = re.fullmatch(r"listening on (\S+)\n", line)
            if found:
                urls.append(found.group(1))
        check(len(urls) == listens, f"beam serve {words} said {said!r}")
        for warning in warnings:
            contains(said, warning)
        check(warnings or said.count("\n") == listens, f"beam serve {words} said {said!r}")
        yield urls[0] if listens == 1 else urls
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read().decode(errors="replace")
        process.wait(PATIENCE)
        check(process.returncode == OK, f"beam serve {words} ended with {process.returncode}: {said!r}")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def call(url, *words, code=OK):
    return beam("call", url, "echo", "text=hi", "--timeout", "20s", *words, code=code)


with case("https: with certificates at both ends, over each transport"):
    with serving("echo", "clock", "--listen", "https://localhost:0", *SERVER, "--client-ca", CERT / "ca.pem") as url:
        check(re.fullmatch(r"https://localhost:[1-9]\d*", url), f"listens at {url}")
        equal(call(url, *CA, *CLIENT).text, "text=hi\n")
        equal(call(url.replace("https:", "wss:"), *CA, *CLIENT).text, "text=hi\n")
        equal(beam("watch", url, "clock", "rate:=1000", "count:=3", *CA, *CLIENT).text.count("\n"), 3)

with case("https: what is wrong is said, with what to do: exit code 5"):
    with serving("echo", "--listen", "https://localhost:0", *SERVER, "--client-ca", CERT / "ca.pem") as url:
        contains(call(url, *CLIENT, code=PERMISSION).errors, "--ca FILE")
        contains(call(url, "--ca", OTHERS / "ca.pem", *CLIENT, code=PERMISSION).errors, "--ca FILE")
        contains(call(url, *CA, *CLIENT, "--server-name", "x.example", code=PERMISSION).errors, "--server-name")
        contains(call(url, *CA, code=PERMISSION).errors, "--cert FILE --key FILE")
        contains(call(url, *CA, "--cert", OTHERS / "client.pem", "--key", OTHERS / "client.key",
                      code=PERMISSION).errors, "--cert FILE --key FILE")
        contains(call(url, *CA, "--cert", CERT / "client.pem", "--key", CERT / "server.key", code=OTHER).errors,
                 "cannot be used")
        equal(call(url.replace("localhost", "127.0.0.1"), *CA, *CLIENT, "--server-name", "localhost").text,
              "text=hi\n")
    contains(beam("serve", "echo", "--listen", "https://localhost:0", "--cert", CERT / "server.pem", "--key",
                  CERT / "client.key", "--client-ca", CERT / "ca.pem", code=OTHER).errors, "cannot be used")
    contains(beam("serve", "echo", "--listen", ANYWHERE, "--trust-proxy", "localhost", "--identity-header", "x",
                  code=USAGE).errors, "--trust-proxy is an address")

with case("tokens: the right one, a wrong one and none"):
    with serving("echo", "kv", "--listen", ANYWHERE, "--token-file", FILE) as url:
        equal(call(url, "--token", GOOD).text, "text=hi\n")
        equal(call(url, "--token-file", FILE).text, "text=hi\n")
        equal(call(url.replace("http:", "ws:"), "--token", "another-token-of-hers-0123").text, "text=hi\n")
        for words in ([], ["--token", GOOD[:-1]], ["--token", "x" + GOOD]):
            contains(call(url, *words, code=PERMISSION).errors, "--token-file FILE")
        beam("kv", "put", url, "a", "1", "--token", GOOD)
        equal(beam("kv", "get", url, "a", "--token", GOOD).text, "1\n")
        contains(beam("kv", "get", url, "a", code=PERMISSION).errors, "401")
    with serving("echo", "--listen", "http://0.0.0.0:0", "--token-file", FILE,
                 warnings=["tokens can be read on the way"]):
        pass

with case("a socket file and anonymous callers"):
    where = f"http+unix:{folder}/h.sock"
    with serving("echo", "--listen", where, "--listen", ANYWHERE, "--insecure-anonymous") as urls:
        equal(urls[0], where)
        for url in urls:
            equal(call(url).text, "text=hi\n")
    with serving("echo", "--listen", where):
        equal(call(where).text, "text=hi\n")

with case("curl calls, with a certificate, with a token, and with none"):
    if not shutil.which("curl"):
        skip("no curl")

    def curl(url, *words):
        done = subprocess.run(["curl", "-sS", "--max-time", "20", "-w", "\n%{http_code}", "-H",
                               "content-type: application/json", "-d", '{"text":"hi"}',
                               *map(str, words), f"{url}/beam/call/echo"],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
        body, _, status = done.stdout.rpartition("\n")
        return int(status), body or done.stderr

    with serving("echo", "--listen", "https://localhost:0", *SERVER, "--client-ca", CERT / "ca.pem") as url:
        status, body = curl(url, "--cacert", CERT / "ca.pem", *CLIENT)
        equal((status, json.loads(body) if status else body), (200, {"text": "hi"}))
        equal(curl(url, "--cacert", CERT / "ca.pem")[0], 0)
    with serving("echo", "--listen", ANYWHERE, "--token-file", FILE) as url:
        equal(curl(url, "-H", f"authorization: Bearer {GOOD}")[0], 200)
        equal(curl(url)[0], 401)
    with serving("echo", "--listen", ANYWHERE, "--trust-proxy", "127.0.0.1", "--identity-header",
                 "X-Remote-User") as url:
        equal(curl(url, "-H", "x-remote-user: ada")[0], 200)
        equal(curl(url)[0], 401)

def whoami(url, *words):
    return json.loads(beam("call", url, "whoami", "--json", "--timeout", "20s", *words).text)["metadata"]


with case("whoever asks is known by the same name to a session, a call by curl, and over a unix socket as a user"):
    where = f"unix:{folder}/w.sock"
    with serving("whoami", "--listen", "https://localhost:0", "--listen", where, *SERVER, "--client-ca",
                 CERT / "ca.pem") as (url, _):
        for one in (url, url.replace("https:", "wss:")):
            seen = whoami(one, *CA, *CLIENT)
            equal((seen["kind"], seen["identity"]), ("net", "uri:spiffe://example/ada"))
            check(re.fullmatch(r"127\.0\.0\.1:\d+", seen["address"]), seen)
        equal(whoami(where)["uid"], os.geteuid())
        equal(whoami(where)["kind"], "unix")
    with serving("whoami", "--listen", ANYWHERE, "--listen", f"http+unix:{folder}/h.sock", "--token-file", FILE,
                 "--trust-proxy", "127.0.0.0/8", "--identity-header", "x-remote-user", "--insecure-anonymous") as (
                     url, local):
        equal(whoami(url, "--token-file", FILE)["identity"], "token:ada")
        equal(whoami(url, "--token", "another-token-of-hers-0123")["identity"], "token:eve")
        check("identity" not in whoami(url), "nobody has an identity")
        equal(whoami(local)["identity"], "unix")
        if shutil.which("curl"):
            for header, wanted in (("X-Remote-User: bob", "proxy:bob"), (f"Authorization: bearer {GOOD}", "token:ada"),
                                   ("x_remote_user: bob", None)):
                out = subprocess.run(["curl", "-sS", "--max-time", "20", "-H", header, "-X", "POST",
                                      f"{url}/beam/call/whoami"], stdout=subprocess.PIPE, timeout=PATIENCE).stdout
                equal(json.loads(out).get("identity"), wanted)

with case("an address has as many connections as was said, and makes as many in a second"):
    for option, number, good in (("--address-connections", "2", 2), ("--address-rate", "1", 2)):
        with serving("echo", "--listen", ANYWHERE, "--insecure-anonymous", option, number) as url:
            host, port = url.removeprefix("http://").rstrip("/").split(":")
            answers = []
            kept = []
            for _ in range(4):
                one = socket.create_connection((host, int(port)), timeout=PATIENCE)
                kept.append(one)
                try:
                    one.sendall(b"GET /beam/health HTTP/1.1\r\nHost: here\r\n\r\n")
                    answers.append(one.recv(9) == b"HTTP/1.1 ")
                except ConnectionError:
                    answers.append(False)
            for one in kept:
                one.close()
            equal(answers, [True] * good + [False] * (4 - good))

with case("nobody there is exit code 4, over a network too"):
    with serving("echo", "--listen", ANYWHERE, "--insecure-anonymous") as url:
        pass
    call(url, code=UNAVAILABLE)

scratch.cleanup()
finish()
