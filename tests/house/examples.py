"""Every example runs: alone, without arguments; NAME_client against NAME_server; and the demo."""
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from cases import ROOT, case, check, finish, run, start

BUILD = pathlib.Path(os.environ["BEAM_BUILD_DIR"])
DEMO = sys.argv[1:] == ["demo"]

start()
programs = sorted(f.stem for f in (ROOT / "examples").glob("*.c"))
servers = [name for name in programs if name.endswith("_server")]
pairs = [(name, name.replace("_server", "_client")) for name in servers]

for name in programs:
    with case(f"example: {name}"):
        print(run(BUILD / "examples" / name, timeout=60, stdin=subprocess.DEVNULL), end="")

for server, client in pairs:
    with case(f"example: {client} is answered by {server}, which ends on SIGTERM"), \
            tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "socket")
        with subprocess.Popen([BUILD / "examples" / server, f"unix:{path}"]) as process:
            try:
                until = time.monotonic() + 20
                while not path.exists() and process.poll() is None and time.monotonic() < until:
                    time.sleep(0.01)
                output = run(BUILD / "examples" / client, f"unix:{path}", "ada", timeout=20)
                check("ada" in output, f"printed:\n{output}")
                process.send_signal(signal.SIGTERM)
                check(process.wait(20) == 0, f"the server ended with {process.returncode}")
            finally:
                process.kill()

if DEMO:
    with case("the demo, with a small large file"):
        output = run("bash", ROOT / "examples/demo.sh", BUILD / "beam", timeout=110,
                     stdin=subprocess.DEVNULL, env={**os.environ, "BEAM_DEMO_MIB": "64"})
        check(output.endswith("demo: ok\n"), output)
finish()
