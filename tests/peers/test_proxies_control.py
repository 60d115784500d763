"""The configurations of docs/proxies.md, with servers and clients that are none of ours at both ends.

What fails here is a proxy's fault or its configuration's; what fails in front of Beam alone is Beam's. Nothing of
Beam runs, so once is enough, without sanitizers.
"""
import contextlib
import json
import os
import pathlib
import subprocess
import sys

# The counts are those of the closing line; whoever runs this script records them.
os.environ.pop("BEAM_TEST_RESULTS", None)
sys.dont_write_bytecode = True
TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "house"), str(TESTS / "peers")]
from cases import case, check, finish, skip  # noqa: E402
from proxies import (PATIENCE, PYTHON, STARTS, WS, configurations, free_port, missing, place,  # noqa: E402
                     program, proxy, running)

ECHO = TESTS / "peers/echo.mjs"
NAMES = {"nginx-grpc": "h2c", "nginx-grpcs": "tls", "nginx-stream": "tls", "nginx-auth": "h2c",
         "nginx-websocket": "ws", "haproxy-h2c": "h2c", "haproxy-tls": "tls", "caddy": "h2c",
         "nghttpx-h2c": "h2c", "nghttpx-tls": "tls"}


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
    for module in ("h2", "websockets"):
        if subprocess.run([PYTHON, "-c", f"import {module}"], stderr=subprocess.DEVNULL).returncode:
            missing(f"python3-{module}")

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

for name, back in NAMES.items():
    if not name.endswith(("grpcs", "-tls")):
        continue
    with case(f"peers: {name} does not believe a server that somebody else has signed"):
        with place() as where, place() as other, serving(other, "serve", back) as port, \
                proxy(where, name, port) as front:
            answer = talk(front, where, 1, 2, 1000)
            check(answer[":status"] in (502, 503), f"{answer}")

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

finish()
