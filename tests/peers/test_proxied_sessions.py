"""Beam's own client at one end and `beam serve` at the other, with the proxies of docs/proxies.md between them.

    test_proxied_sessions.py [path/to/beam]

What a session has to be able to do is in peer_client.c, which is built beside the tests. Each way of
docs/spec/http.md, section 6, that a proxy lets through is asked for by its name, so that no other one stands in for
it; which those are is what test_proxies_control.py found with somebody else's client and server.
"""
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

# The counts are those of the closing line; whoever runs this script records them.
os.environ.pop("BEAM_TEST_RESULTS", None)
sys.dont_write_bytecode = True
TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "house"), str(TESTS / "cli"), str(TESTS / "peers")]
from cases import case, check, finish  # noqa: E402
from proxies import PATIENCE, free_port, place, program, proxy, running  # noqa: E402
from shell import BEAM, OK, PERMISSION, UNAVAILABLE, beam, contains, read_line, serving  # noqa: E402

CLIENT = pathlib.Path(BEAM).parent / "tests/peer_client"
if not CLIENT.exists():
    print("this build has no networks")
    sys.exit(77)

WEBSOCKETS = ("connect", "upgrade")  # over HTTP/2, over HTTP/1.1
# The scheme that Beam listens at, and which ways besides HTTP/2 lead through.
PROXIES = {"nginx-grpc": ("http", ()), "nginx-grpcs": ("https", ()), "nginx-stream": ("https", WEBSOCKETS),
           "haproxy-h2c": ("http", WEBSOCKETS), "haproxy-tls": ("https", WEBSOCKETS), "caddy": ("http", ()),
           "nghttpx-h2c": ("http", WEBSOCKETS), "nghttpx-tls": ("https", WEBSOCKETS)}
LADDER_MS = 4000  # a way that does not answer is left after 3 s (docs/spec/http.md, L1); the rest is next to nothing


@contextlib.contextmanager
def beam_serving(where, scheme, *words):
    """`beam serve` as a proxy stands in front of it; gives its process and its port."""
    port = free_port()
    files = ["--cert", where.cert, "--key", where.key] if scheme == "https" else []
    with serving("echo", "reverse", "whoami", "--drain", f"{PATIENCE}s", "--listen", f"{scheme}://127.0.0.1:{port}/",
                 *(words or ["--insecure-anonymous"]), *files) as process:
        yield process, port


def command(where, front, way, *task, scheme="https"):
    ca = where.ca if scheme == "https" else "-"
    return [str(word) for word in (CLIENT, f"{scheme}://localhost:{front.port}", ca, way, *task)]


def client(where, front, way, *task, scheme="https"):
    """What a client that has to do its task well printed."""
    try:
        done = subprocess.run(command(where, front, way, *task, scheme=scheme), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired as late:
        check(False, f"{way} {task} did not end; it said {late.stderr!r}")
    check(done.returncode == 0, f"{way} {task} ended with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def check_drain(where, front, way, server):
    """The server is told to end in the midst of a conversation, which goes on to its own end."""
    with subprocess.Popen(command(where, front, way, "drain"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, bufsize=0) as process:
        try:
            line = read_line(process.stdout)
            if line == "ready\n":
                server.send_signal(signal.SIGTERM)
                process.wait(PATIENCE)
        finally:
            process.kill()
        said = process.stderr.read().decode(errors="replace")
        check(line == "ready\n", f"the client said {line!r}; {said}")
        check(process.returncode == 0, f"the client ended with {process.returncode}: {said}")
    server.wait(PATIENCE)


class Front:
    """The server itself where a proxy would be."""

    def __init__(self, port):
        self.port = port


for scheme in ("http", "https"):
    with case(f"peers: a session without a proxy, by each way, over {scheme}"):
        with place() as where, beam_serving(where, scheme) as (server, port):
            for way in ("any", "http2", *WEBSOCKETS):
                client(where, Front(port), way, "duplex", 8, 1, 300_000, scheme=scheme)
                client(where, Front(port), way, "streams", 4, 500_000, scheme=scheme)
                client(where, Front(port), way, "reverse", 8, 300_000, scheme=scheme)

for name, (scheme, ways) in PROXIES.items():
    with case(f"peers: a session of HTTP/2 through {name}"):
        with place() as where, beam_serving(where, scheme) as (server, port), proxy(where, name, port) as front:
            client(where, front, "any", "open")
            client(where, front, "http2", "duplex", 8, 1, 300_000)
            client(where, front, "http2", "duplex", 8, 1, 1_000_000)
            client(where, front, "http2", "duplex", 60, 4, 1000)
            client(where, front, "http2", "streams", 60, 50_000)
            client(where, front, "http2", "dedicated", 60, 50_000)
            client(where, front, "http2", "dedicated", 4, 500_000)
            client(where, front, "http2", "reverse", 60, 1000)
            client(where, front, "http2", "reverse", 8, 300_000)
            check_drain(where, front, "http2", server)
    if ways:
        with case(f"peers: a session over WebSocket through {name}"):
            with place() as where, beam_serving(where, scheme) as (server, port), proxy(where, name, port) as front:
                for way in ways:
                    client(where, front, way, "duplex", 8, 1, 300_000)
                    client(where, front, way, "reverse", 8, 300_000)
                check_drain(where, front, ways[-1], server)

with case("peers: a session over WebSocket through nginx-websocket"):
    with place() as where, beam_serving(where, "http") as (server, port), \
            proxy(where, "nginx-websocket", port) as front:
        client(where, front, "upgrade", "duplex", 8, 1, 300_000)
        client(where, front, "upgrade", "duplex", 8, 1, 1_000_000)
        client(where, front, "upgrade", "duplex", 60, 4, 1000)
        client(where, front, "upgrade", "streams", 60, 50_000)
        client(where, front, "upgrade", "reverse", 60, 1000)
        client(where, front, "upgrade", "reverse", 8, 300_000)
        check_drain(where, front, "upgrade", server)


# Hours in a minute: time-outs that are short, and sessions that say nothing but that they live. At once, since each
# takes that long.
SILENCE = int(os.environ.get("BEAM_SILENCE", 0))
if SILENCE:
    with case(f"peers: sessions behind every proxy live through {SILENCE} s without a word, with time-outs of 30 s"):
        with place() as where, contextlib.ExitStack() as stack:
            talks = {}
            for name, (scheme, ways) in {**PROXIES, "nginx-websocket": ("http", ("upgrade",))}.items():
                _, port = stack.enter_context(beam_serving(where, scheme))
                front = stack.enter_context(proxy(where, name, port, change=lambda text: text.replace("1h", "30s")))
                for way in ways if name == "nginx-websocket" else ("http2", *ways):
                    talks[name, way] = stack.enter_context(subprocess.Popen(
                        command(where, front, way, "silence", SILENCE), stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
            for key, talk in talks.items():
                said = talk.communicate(timeout=SILENCE + PATIENCE)[1]
                check(talk.returncode == 0, f"{key}: {said}")


def without(*starts):
    """Leaves the lines away that begin so."""
    def change(text):
        lines = text.splitlines(keepends=True)
        for start in starts:
            check(any(line.strip().startswith(start) for line in lines), f"there is no {start}")
        return "".join(line for line in lines if not line.strip().startswith(starts))
    return change


# What nginx makes of a session of HTTP/2 that it cannot pass on: Beam's own 426; that with a field for which the
# client resets the stream; a request that is kept until it has ended, and so for ever.
for what, change in (("answered", lambda text: text),
                     ("answered wrongly", without("proxy_hide_header", "add_header upgrade")),
                     ("not answered", without("proxy_request_buffering"))):
    with case(f"peers: behind nginx-websocket a session of HTTP/2 is {what}, and a WebSocket reached in time"):
        with place() as where, beam_serving(where, "http") as (server, port), \
                proxy(where, "nginx-websocket", port, change=change) as front:
            got = client(where, front, "any", "open")
            check(got["connect_ms"] <= LADDER_MS, f"{got}")


def asked_for_streams(where, name):
    """The statuses that nginx has passed on to who asked for a stream of its own."""
    log = (where.path / f"{name}.access").read_text()
    return re.findall(r'"POST /beam/v1/stream HTTP/2\.0" (\d+) ', log)


with case("peers: through nginx-grpc a long transfer has a stream of its own"):
    with place() as where, beam_serving(where, "http") as (server, port):
        with proxy(where, "nginx-grpc", port) as front:
            client(where, front, "http2", "dedicated", 4, 500_000)
        statuses = asked_for_streams(where, "nginx-grpc")
        check(statuses == ["200"] * 4, f"{statuses}")

with case("peers: a transfer whose stream has come to another server, which says 421, goes in the session"):
    with place() as where, beam_serving(where, "http") as (server, port), \
            beam_serving(where, "http") as (_, other):
        away = f"location = /beam/v1/stream {{ grpc_pass grpc://127.0.0.1:{other}; }}\n"
        with proxy(where, "nginx-grpc", port,
                   change=lambda text: text.replace("location /beam/", away + "location /beam/")) as front:
            client(where, front, "http2", "dedicated", 4, 500_000)
            client(where, front, "any", "dedicated", 60, 50_000)
        statuses = asked_for_streams(where, "nginx-grpc")
        check(statuses and set(statuses) == {"421"}, f"{statuses}")


def whoami(where, front, *words, code=OK):
    return beam("call", f"https://localhost:{front.port}", "whoami", "--ca", where.ca, "--json", "--timeout", "20s",
                *words, code=code)


with case("peers: behind nginx-auth a session has the identity that the proxy gives it"):
    with place() as where, beam_serving(where, "http", "--trust-proxy", "127.0.0.1", "--identity-header",
                                        "x-who") as (server, port):
        auth = free_port()
        with running(where, "who", [program("node"), TESTS / "peers/echo.mjs", "who", auth], auth), \
                proxy(where, "nginx-auth", port, auth) as front:
            seen = json.loads(whoami(where, front, "--token", "good").text)["metadata"]
            check(seen["identity"] == "proxy:ada", f"{seen}")
            contains(whoami(where, front, "--token", "bad", code=PERMISSION).errors, "401")
            contains(whoami(where, front, code=PERMISSION).errors, "401")

with case("peers: behind nginx-auth nobody is known to a Beam that was told of another proxy"):
    with place() as where, beam_serving(where, "http", "--trust-proxy", "192.0.2.1", "--identity-header",
                                        "x-who") as (server, port):
        auth = free_port()
        with running(where, "who", [program("node"), TESTS / "peers/echo.mjs", "who", auth], auth), \
                proxy(where, "nginx-auth", port, auth) as front:
            contains(whoami(where, front, "--token", "good", code=PERMISSION).errors, "401")

# What a client is told when nobody is behind the proxy. haproxy is left out: it goes on trying for about as long as
# a client waits for a way.
for name, part in (("nginx-grpc", "502"), ("nginx-grpcs", "502"), ("nginx-stream", "connecting failed"),
                   ("caddy", "502"), ("nghttpx-h2c", "502")):
    with case(f"peers: a client of {name} is told that there is no server behind it"):
        with place() as where, proxy(where, name, free_port()) as front:
            contains(beam("call", f"https://localhost:{front.port}", "echo", "--ca", where.ca, "--timeout", "20s",
                          code=UNAVAILABLE).errors, part)

finish()
