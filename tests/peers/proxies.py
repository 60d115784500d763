"""Real proxies in front of a server, with the configurations of docs/proxies.md.

    with folder() as place, proxy(place, "haproxy-h2c", back=port) as front:
        ... f"https://localhost:{front.port}/", trusting place.ca ...

A proxy runs in the foreground as the user of the test, with all its files and its log in the place, and ends with
the block. What is not installed skips the case, by name; in CI it fails it.
"""
import contextlib
import ctypes
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from cases import ROOT, check, run, skip

PATIENCE = 30  # seconds; only a hang is longer
PAGE = ROOT / "docs/proxies.md"
PATH = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
PYTHON = "/usr/bin/python3"  # the one that the distribution's modules are for
WS = pathlib.Path("/usr/share/nodejs/ws/wrapper.mjs")  # npm's ws, as the distribution has it


def missing(what):
    check(os.environ.get("CI") != "true", f"{what} is not installed, and CI must have it")
    skip(f"{what} is not installed")


def program(name):
    """Where it is; without it there is no case."""
    return shutil.which(name, path=PATH) or missing(name)


def python(script, module, *words):
    """What a script beside this one, which needs a module of the distribution's, says as JSON."""
    if subprocess.run([PYTHON, "-c", f"import {module}"], stderr=subprocess.DEVNULL).returncode:
        missing(f"python3-{module}")
    done = subprocess.run([PYTHON, "-B", ROOT / "tests/peers" / script, *map(str, words)], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    check(done.returncode == 0, f"{script} ended with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


def follow_parent():
    """In a child: it ends when the test does, however that ends."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def free_port():
    """A port outside those that the kernel gives to whoever asks for any, so that nobody is given it
    before the server has it."""
    ephemeral = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(1000):
        port = random.randrange(max(1024, min(10000, ephemeral - 1000)), ephemeral)
        with contextlib.closing(socket.socket()) as probe:
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    check(False, "no free port")


class Place:
    """A folder with certificates: a CA, and a server's for localhost and 127.0.0.1."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.ca, self.cert, self.key, self.pem = (self.path / name for name in
                                                  ("ca.pem", "cert.pem", "key.pem", "both.pem"))
        self.openssl = program("openssl")
        self._certificate(self.ca, self.path / "ca.key", "/CN=Beam tests", "basicConstraints=critical,CA:TRUE",
                          "keyUsage=critical,keyCertSign")
        self._certificate(self.cert, self.key, "/CN=localhost", "basicConstraints=critical,CA:FALSE",
                          "subjectAltName=DNS:localhost,IP:127.0.0.1", "extendedKeyUsage=serverAuth",
                          "keyUsage=critical,digitalSignature",
                          issuer=("-CA", self.ca, "-CAkey", self.path / "ca.key"))
        self.pem.write_text(self.cert.read_text() + self.key.read_text())

    def _certificate(self, cert, key, name, *extensions, issuer=()):
        words = [word for text in extensions for word in ("-addext", text)]
        config = self.path / "openssl.cnf"
        config.write_text("[req]\ndistinguished_name = name\n[name]\n")
        run(self.openssl, "req", "-config", config, "-x509", "-newkey", "ec", "-pkeyopt",
            "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", name, "-keyout", key, "-out", cert,
            *issuer, *words)


@contextlib.contextmanager
def place():
    with tempfile.TemporaryDirectory(prefix="beam-peers-") as folder:
        yield Place(folder)


def configurations():
    """What docs/proxies.md has, by name."""
    return dict(re.findall(r"^```\w+ ([\w-]+)\n(.*?)^```", PAGE.read_text(), re.S | re.M))


class Server:
    def __init__(self, process, port, log):
        self.process, self.port, self.log = process, port, log

    def said(self):
        return self.log.read_text(errors="replace")[-3000:]


def answers(port):
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def end(process):
    """The program and what it has started: they are one session of the kernel's."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def running(where, name, command, port):
    """A program that listens at the port from the beginning of the block on."""
    log = where.path / f"{name}.log"
    environment = {**os.environ, "PATH": PATH, "HOME": str(where.path), "XDG_DATA_HOME": str(where.path),
                   "XDG_CONFIG_HOME": str(where.path)}
    with open(log, "ab") as out:
        process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=out,
                                   stderr=out, cwd=where.path, env=environment, start_new_session=True,
                                   preexec_fn=follow_parent)
    server = Server(process, port, log)
    try:
        until = time.monotonic() + PATIENCE
        while not answers(port):
            check(process.poll() is None, f"{name} ended with {process.returncode}:\n{server.said()}")
            check(time.monotonic() < until, f"{name} does not listen:\n{server.said()}")
            time.sleep(0.01)
        yield server
        check(process.poll() is None, f"{name} ended with {process.returncode}:\n{server.said()}")
    except Exception:
        print(f"the log of {name}:\n{server.said()}", file=sys.stderr)
        raise
    finally:
        end(process)


# What each proxy wants around a configuration, and how it is started: nothing of its own outside the place,
# in the foreground, and, where the test is run by root, as root.

def nginx(where, name, text):
    user = "user root root;" if os.geteuid() == 0 else ""
    scratch = "".join(f"    {kind}_temp_path {where.path}/{kind};\n" for kind in
                      ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    if name == "nginx-stream":
        module = "/usr/lib/nginx/modules/ngx_stream_module.so"
        if os.path.exists(module):
            user += f"load_module {module};"
    else:
        text = f"http {{\n    access_log {where.path}/{name}.access;\n{scratch}{text}}}\n"
    config = where.path / f"{name}.conf"
    config.write_text(f"{user}\ndaemon off;\npid {where.path}/{name}.pid;\nworker_processes 1;\n"
                      f"error_log stderr info;\nevents {{ worker_connections 256; }}\n{text}")
    return [program("nginx"), "-e", "stderr", "-p", where.path, "-c", config]


def haproxy(where, name, text):
    config = where.path / f"{name}.cfg"
    config.write_text(text)
    return [program("haproxy"), "-db", "-f", config]


def caddy(where, name, text):
    config = where.path / "Caddyfile"
    config.write_text("{\n    admin off\n    auto_https disable_redirects\n    servers {\n"
                      "        protocols h1 h2\n    }\n}\n" + text)
    return [program("caddy"), "run", "--config", config, "--adapter", "caddyfile"]


def nghttpx(where, name, text):
    config = where.path / f"{name}.conf"
    config.write_text(text)
    return [program("nghttpx"), f"--conf={config}", "--errorlog-file=/dev/stderr", "--accesslog-file=/dev/null",
            "--log-level=NOTICE", f"--pid-file={where.path}/{name}.pid"]


STARTS = {"nginx": nginx, "haproxy": haproxy, "caddy": caddy, "nghttpx": nghttpx}


@contextlib.contextmanager
def proxy(where, name, back, auth=0, change=lambda text: text):
    """The proxy of that configuration, or of what `change` makes of it, in front of the port `back` of this machine."""
    port = free_port()
    values = {"FRONT": f"127.0.0.1:{port}", "FRONT_PORT": port, "BACK": f"127.0.0.1:{back}", "BACK_PORT": back,
              "CERT": where.cert, "KEY": where.key, "PEM": where.pem, "CA": where.ca, "AUTH": f"127.0.0.1:{auth}"}
    text = re.sub(r"@([A-Z_]+)@", lambda found: str(values[found.group(1)]), change(configurations()[name]))
    command = STARTS[name.split("-")[0]](where, name, text)
    with running(where, name, command, port) as server:
        yield server
