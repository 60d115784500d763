"""`beam serve` behind the proxies of docs/proxies.md, asked by clients that are none of ours.

    test_proxies.py [path/to/beam]

test_proxies_control.py has the same proxies in front of somebody else's server: what fails here alone is Beam's fault.
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
sys.path[:0] = [str(TESTS / "house"), str(TESTS / "cli"), str(TESTS / "peers")]
from cases import case, check, finish  # noqa: E402
from hello import HELLO, check_hello, check_session  # noqa: E402
from proxies import PATIENCE, free_port, place, program, proxy, python, running  # noqa: E402
from shell import serving  # noqa: E402

BACK = {"nginx-grpc": "http", "nginx-grpcs": "https", "nginx-stream": "https", "haproxy-h2c": "http",
        "haproxy-tls": "https", "caddy": "http", "nghttpx-h2c": "http", "nghttpx-tls": "https"}


@contextlib.contextmanager
def beam_serving(where, scheme):
    """`beam serve echo`, which lets everybody in, as the proxy stands in front of it; gives its port."""
    port = free_port()
    files = ["--cert", where.cert, "--key", where.key] if scheme == "https" else []
    with serving("echo", "--listen", f"{scheme}://127.0.0.1:{port}/", "--insecure-anonymous", *files):
        yield port


def curl(where, *words):
    """(status, body) of an answer."""
    done = subprocess.run([program("curl"), "-sS", "--cacert", where.ca, "-w", "\n%{http_code}", *map(str, words)],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=PATIENCE)
    check(done.returncode == 0, f"curl ended with {done.returncode}: {done.stderr}")
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def check_call(where, front, *words):
    status, body = curl(where, *words, "-H", "content-type: application/json", "-d", '{"text":"hi"}',
                        f"https://localhost:{front.port}/beam/call/echo")
    check(status == 200 and json.loads(body).get("text") == "hi", f"{status}: {body}")


for name, scheme in BACK.items():
    with case(f"peers: beam behind {name} has sessions and answers calls"):
        with place() as where, beam_serving(where, scheme) as port, proxy(where, name, port) as front:
            got = python("h2_client.py", "h2", f"https://localhost:{front.port}/beam/v1", where.ca, HELLO, 16)
            check_session(got)
            check_call(where, front, "--http2")

with case("peers: beam behind nginx-websocket has sessions over WebSocket and answers calls"):
    with place() as where, beam_serving(where, "http") as port, proxy(where, "nginx-websocket", port) as front:
        got = python("ws_client.py", "websockets", f"wss://localhost:{front.port}/beam/v1/ws", where.ca, HELLO)
        check(got["protocol"] == "beam.v1", f"{got}")
        check_hello(got)
        for version in ("--http1.1", "--http2"):
            check_call(where, front, version)

with case("peers: beam behind nginx-auth is reached by who is known"):
    with place() as where, beam_serving(where, "http") as port:
        auth = free_port()
        with running(where, "who", [program("node"), TESTS / "peers/echo.mjs", "who", auth], auth), \
                proxy(where, "nginx-auth", port, auth) as front:
            check_call(where, front, "--http2", "-H", "authorization: Bearer good")
            status, _ = curl(where, "--http2", "-d", "{}", f"https://localhost:{front.port}/beam/call/echo")
            check(status == 401, f"{status}")

finish()
