"""The configurations of docs/proxies.md, with servers and clients that are none of ours at both ends.

What fails here is a proxy's fault or its configuration's; what fails in front of Beam alone is Beam's. Nothing of
Beam runs, so once is enough, without sanitizers.
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
sys.path[:0] = [str(TESTS / "house"), str(TESTS / "peers")]
from cases import case, check, finish  # noqa: E402
from hello import HELLO  # noqa: E402
from proxies import (PATIENCE, WS, configurations, free_port, missing, place,  # noqa: E402
                     program, proxy, python, running)

ECHO = TESTS / "peers/echo.mjs"
NAMES = {"nginx-grpc": "h2c", "nginx-grpcs": "tls", "nginx-stream": "tls", "nginx-auth": "h2c",
         "nginx-websocket": "ws", "haproxy-h2c": "h2c", "haproxy-tls": "tls", "caddy": "h2c",
         "nghttpx-h2c": "h2c", "nghttpx-tls": "tls"}


# What becomes of WebSocket's two handshakes: the status, or that nothing is offered.
PASSES, TURNS_AWAY = {"h2": 200, "http1": 101}, {"h2": "not offered"}
TUNNELS = {"nginx-grpc": TURNS_AWAY, "nginx-grpcs": TURNS_AWAY, "nginx-stream": {"h2": 200}, "haproxy-h2c": PASSES,
           "haproxy-tls": PASSES, "caddy": {"h2": "not offered", "http1": 502}, "nghttpx-h2c": PASSES,
           "nghttpx-tls": PASSES}


def node(*words):
    """What a client that has to end well said."""
    done = subprocess.run([program("node"), ECHO, *map(str, words)], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    check(done.returncode == 0, f"{words[0]} {words[1]} ended with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


@contextlib.contextmanager
def serving(where, *words):
    port = free_port()
    kind, rest = words[0], words[1:]
    with running(where, "-".join(map(str, words)), [program("node"), ECHO, *([kind, port] if kind == "who" else
                 ["serve", rest[0], port, where.cert, where.key])], port) as server:
        yield server.port


def talk(front, where, streams, messages, length, *headers):
    return node("call", f"https://localhost:{front.port}/", where.ca, streams, messages, length, *headers)


with case("peers: every configuration of docs/proxies.md is tried, and there is no other"):
    check(set(configurations()) == set(NAMES), f"{sorted(set(configurations()) ^ set(NAMES))}")
    for name, text in configurations().items():
        check(len(text.splitlines()) > 3, f"{name} is empty")

with case("peers: everything is here"):
    for name in ("openssl", "node", "curl", "nghttp", "h2load", "nghttpd", "nghttpx", "nginx", "haproxy", "caddy",
                 "h2o"):
        program(name)
    if not WS.exists():
        missing("node-ws")

for name, back in NAMES.items():
    if back == "ws" or name == "nginx-auth":
        continue
    with case(f"peers: {name} passes bodies on both ways at once"):
        with place() as where, serving(where, "serve", back) as port, proxy(where, name, port) as front:
            answer = talk(front, where, 1, 8, 300_000)
            check(answer[":status"] == 200 and answer["content-type"] == "application/x-beam", f"{answer}")
            check(answer["x-length"] == "", f"the request has got a length: {answer}")
            talk(front, where, 1, 8, 1_000_000)
            got = node("flood", f"https://localhost:{front.port}/", where.ca, 32)
            check(got == {"mib": 32}, f"{got}")
            talk(front, where, 60, 4, 1000)
            for version, status in TUNNELS[name].items():
                got = node("tunnel", version, f"https://localhost:{front.port}/", where.ca)
                check(got == {"status": status}, f"{version}: {got}")

for name, back in NAMES.items():
    if not name.endswith(("grpcs", "-tls")):
        continue
    with case(f"peers: {name} does not believe a server that somebody else has signed"):
        with place() as where, place() as other, serving(other, "serve", back) as port, \
                proxy(where, name, port) as front:
            answer = talk(front, where, 1, 2, 1000)
            check(answer[":status"] in (502, 503), f"{answer}")

for name, back in NAMES.items():
    lines = [line for line in configurations()[name].splitlines() if re.search(r"\b1h\b", line)]
    if not lines:
        continue
    with case(f"peers: {name} ends silence where the page says so"):
        with place() as where, serving(where, "serve", back) as port, serving(where, "who") as auth:
            for line in lines:
                if "timeout client " in line:  # there for haproxy's sake
                    continue
                kind = "upgrade" if back == "ws" or "tunnel" in line else "post"
                with proxy(where, name, port, auth,
                           lambda text: text.replace(line, line.replace("1h", "1s"))) as front:
                    got = node("idle", kind, f"https://localhost:{front.port}/", where.ca)
                    check(got == {"closed": True}, f"{line}: {got}")

with case("peers: nginx-auth lets in who is known, and says who it is"):
    with place() as where, serving(where, "serve", "h2c") as back, serving(where, "who") as auth, \
            proxy(where, "nginx-auth", back, auth) as front:
        answer = talk(front, where, 1, 8, 300_000, "authorization=Bearer good", "x-who=eve")
        check((answer[":status"], answer.get("x-seen")) == (200, "ada"), f"{answer}")
        answer = talk(front, where, 1, 8, 1000, "authorization=Bearer bad", "x-who=eve")
        check(answer[":status"] == 401 and answer["www-authenticate"] == "Bearer", f"{answer}")
        check("x-seen" not in answer, f"it has reached the server: {answer}")

with case("peers: nginx-websocket passes an upgrade on, and answers what is none at once"):
    if not WS.exists():
        missing("node-ws")
    with place() as where, serving(where, "serve", "ws") as back, proxy(where, "nginx-websocket", back) as front:
        answer = node("ws", f"wss://localhost:{front.port}/beam/v1/ws", where.ca, 8, 300_000)
        check(answer == {"protocol": "beam.v1"}, f"{answer}")
        answer = talk(front, where, 1, 8, 1000)
        check(answer[":status"] == 426, f"{answer}")

with case("peers: python3-h2 has a session's stream, in cleartext and over TLS"):
    with place() as where:
        for kind, scheme in (("h2c", "http"), ("tls", "https")):
            with serving(where, "serve", kind) as port:
                got = python("h2_client.py", "h2", f"{scheme}://localhost:{port}/beam/v1", where.ca, HELLO, 72)
                check(got["headers"][":status"] == "200" and got["came"] == HELLO and got["end"] == "end", f"{got}")

with case("peers: python3-websockets has a session's messages, with and without a proxy"):
    with place() as where, serving(where, "serve", "ws") as port, proxy(where, "nginx-websocket", port) as front:
        for url in (f"ws://localhost:{port}/beam/v1/ws", f"wss://localhost:{front.port}/beam/v1/ws"):
            got = python("ws_client.py", "websockets", url, where.ca, HELLO)
            check(got == {"protocol": "beam.v1", "came": HELLO, "code": 1000}, f"{got}")

finish()
