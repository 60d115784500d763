"""`beam serve` asked by clients that are none of ours, and Beam's own client of servers that are no Beam: without a
proxy between them.

    test_other_peers.py [path/to/beam]
"""
import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys

# The counts are those of the closing line; whoever runs this script records them.
os.environ.pop("BEAM_TEST_RESULTS", None)
sys.dont_write_bytecode = True
TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "house"), str(TESTS / "cli"), str(TESTS / "peers")]
from cases import case, check, finish  # noqa: E402
from hello import HELLO, check_hello, check_session  # noqa: E402
from proxies import PATIENCE, WS, free_port, missing, place, program, proxy, python, running  # noqa: E402
from shell import OTHER, PERMISSION, beam, contains, serving  # noqa: E402

ECHO = TESTS / "peers/echo.mjs"
SCHEMES = ("http", "https")


@contextlib.contextmanager
def beam_serving(where, scheme):
    """`beam serve echo`, which lets everybody in; gives host and port."""
    port = free_port()
    files = ["--cert", where.cert, "--key", where.key] if scheme == "https" else []
    with serving("echo", "--listen", f"{scheme}://127.0.0.1:{port}/", "--insecure-anonymous", *files):
        yield f"localhost:{port}"


def output(*words):
    """What a program that has to end well printed."""
    done = subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    check(done.returncode == 0, f"{words[0]} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def question(where):
    path = where.path / "question"
    path.write_text('{"text":"hi"}')
    return path


for scheme in SCHEMES:
    with case(f"peers: nghttp calls over {scheme}"):
        with place() as where, beam_serving(where, scheme) as host:
            text = output(program("nghttp"), "-v", "--no-verify-peer", "-H", "content-type: application/json", "-d",
                          question(where), f"{scheme}://{host}/beam/call/echo")
            contains(text, ":status: 200")
            contains(text, '{"text":"hi"}')
            check("RST_STREAM" not in text, text)

    for version in ("h2", "http/1.1"):
        with case(f"peers: h2load calls by {version} over {scheme}, and every answer is a good one"):
            with place() as where, beam_serving(where, scheme) as host:
                way = ["--h1"] if version == "http/1.1" else ["-m", 20]
                text = output(program("h2load"), "-n", 2000, "-c", 8, "-t", 1, *way, "-H",
                              "content-type: application/json", "-d", question(where),
                              f"{scheme}://{host}/beam/call/echo")
                contains(text, "2000 succeeded, 0 failed, 0 errored, 0 timeout")
                contains(text, "status codes: 2000 2xx, 0 3xx, 0 4xx, 0 5xx")

    with case(f"peers: python3-h2 and Node's http2 have a session over {scheme}"):
        with place() as where, beam_serving(where, scheme) as host:
            url = f"{scheme}://{host}/beam/v1"
            check_session(python("h2_client.py", "h2", url, where.ca, HELLO, 16))
            check_session(json.loads(output(program("node"), ECHO, "hello", "h2", url, where.ca, HELLO, 16)))

    with case(f"peers: python3-websockets and npm's ws have a session over {scheme}"):
        if not WS.exists():
            missing("node-ws")
        with place() as where, beam_serving(where, scheme) as host:
            url = f"{scheme.replace('http', 'ws')}://{host}/beam/v1/ws"
            for got in (python("ws_client.py", "websockets", url, where.ca, HELLO),
                        json.loads(output(program("node"), ECHO, "hello", "ws", url, where.ca, HELLO, 16))):
                check(got["protocol"] == "beam.v1" and got["code"] == 1000, f"{got}")
                check_hello(got)


def told(where, port, scheme, code):
    """What a client is told by a server that is no Beam, before its own patience ends."""
    trust = ["--ca", where.ca] if scheme in ("https", "wss") else []
    return beam("call", f"{scheme}://localhost:{port}", "echo", "--timeout", f"{PATIENCE}s", *trust, code=code).errors


# Node's servers send back what comes, so that a WebSocket's frames are those of the wrong side, and HELLO that of
# the wrong role; "who" asks for a token.
for what, words, scheme, code, part in (
        ("HTTP/2", ["serve", "h2c"], "http", OTHER, "peer breaks the rules"),
        ("HTTP/2 with TLS", ["serve", "tls"], "https", OTHER, "peer breaks the rules"),
        ("HTTP/2, asked for a WebSocket,", ["serve", "h2c"], "ws", OTHER, "does not speak HTTP"),
        ("WebSocket", ["serve", "ws"], "ws", OTHER, "both ends claim the same role"),
        ("HTTP/1.1", ["who"], "http", PERMISSION, "401")):
    with case(f"peers: Node's server of {what} is no Beam, and a client is told so"):
        with place() as where:
            port = free_port()
            files = [where.cert, where.key] if words[0] == "serve" else []
            with running(where, "node", [program("node"), ECHO, *words, port, *files], port):
                contains(told(where, port, scheme, code), part)

with case("peers: a site without Beam is told of as one"):
    with place() as where:
        change = lambda text: re.sub(r"grpc_pass [^;]*;", "return 404;", text)  # noqa: E731
        with proxy(where, "nginx-grpc", 1, change=change) as front:
            for scheme in ("https", "wss"):
                contains(told(where, front.port, scheme, OTHER), "no Beam")

with case("peers: a server of TLS is no server of HTTP, nor the other way round"):
    with place() as where:
        with beam_serving(where, "http") as host:
            contains(told(where, host.split(":")[1], "https", OTHER), "does not speak TLS")
        with beam_serving(where, "https") as host:
            contains(told(where, host.split(":")[1], "http", OTHER), "connecting failed")

finish()
