"""`beam cert`: what it writes, what it leaves alone, and that others take its certificates for what they
are.

    test_cert.py [path/to/beam]
"""
import os
import pathlib
import re
import shutil
import ssl
import subprocess
import sys
import tempfile

os.environ.pop("BEAM_TEST_RESULTS", None)  # whoever runs this script records the closing line
sys.dont_write_bytecode = True
TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "house"), str(TESTS / "cli")]
from cases import case, check, finish, skip  # noqa: E402
from shell import LIMIT, OK, OTHER, PERMISSION, USAGE, beam, contains, equal  # noqa: E402

scratch = tempfile.TemporaryDirectory(prefix="beam-cert-")
folder = pathlib.Path(scratch.name)
FILES = {"ca.pem", "ca.key", "server.pem", "server.key", "client.pem", "client.key"}


def content(place):
    return {path.name: path.read_bytes() for path in place.iterdir()}


def openssl(*words, code=0):
    done = subprocess.run(["openssl", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=30, text=True)
    check(done.returncode == code, f"openssl {words} ended with {done.returncode}: {done.stdout}")
    return done.stdout


def handshake(place, host, client=True):
    """What the server sees of the client, over memory: the library of Python, OpenSSL, at both ends."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(place / "server.pem", place / "server.key")
    server.load_verify_locations(place / "ca.pem")
    server.verify_mode = ssl.CERT_REQUIRED
    asking = ssl.create_default_context(cafile=place / "ca.pem")
    if client:
        asking.load_cert_chain(place / "client.pem", place / "client.key")
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [asking.wrap_bio(down, up, server_hostname=host), server.wrap_bio(up, down, server_side=True)]
    done = [False, False]
    for _ in range(10):
        for i, end in enumerate(ends):
            try:
                end.do_handshake()
                done[i] = True
            except ssl.SSLWantReadError:
                pass
    check(all(done), "the handshake does not end")
    return ends[1].getpeercert()


with case("cert makes six files, the keys for this user alone, and tells what to do next"):
    old = os.umask(0)
    try:
        result = beam("cert", folder / "a")
    finally:
        os.umask(old)
    equal(set(content(folder / "a")), FILES)
    for name in FILES:
        mode = (folder / "a" / name).stat().st_mode & 0o777
        equal(mode, 0o600 if name.endswith(".key") else 0o644, name)
    equal((folder / "a").stat().st_mode & 0o777, 0o700)
    contains(result.text, "for trying")
    for wanted in (f"beam serve echo --listen https://0.0.0.0:8443 --cert {folder}/a/server.pem",
                   f"--client-ca {folder}/a/ca.pem", "beam call https://localhost:8443 echo text=hi",
                   f"curl --cacert {folder}/a/ca.pem"):
        contains(result.text, wanted)

with case("cert's certificates are taken by OpenSSL, under each name"):
    for host in ("localhost", "127.0.0.1", "::1", os.uname().nodename):
        seen = handshake(folder / "a", host)
        equal(dict(seen["subject"][0]), {"commonName": "client"})
    refused = False
    try:
        handshake(folder / "a", "elsewhere.example")
    except ssl.SSLCertVerificationError:
        refused = True
    check(refused, "another host's name is accepted")
    refused = False
    try:
        handshake(folder / "a", "localhost", client=False)
    except ssl.SSLError:
        refused = True
    check(refused, "a client without a certificate is accepted")

with case("cert's certificates are each for one use"):
    if not shutil.which("openssl"):
        skip("no openssl")
    for who, use, code in (("server", "sslserver", 0), ("client", "sslclient", 0), ("server", "sslclient", 2),
                           ("client", "sslserver", 2)):
        openssl("verify", "-x509_strict", "-purpose", use, "-CAfile", folder / "a/ca.pem", folder / f"a/{who}.pem",
                code=code)
    for who in ("ca", "server", "client"):
        contains(openssl("x509", "-in", folder / f"a/{who}.pem", "-noout", "-text"), "ASN1 OID: prime256v1")
        equal(openssl("x509", "-in", folder / f"a/{who}.pem", "-noout", "-pubkey"),
              openssl("pkey", "-in", folder / f"a/{who}.key", "-pubout"))

with case("cert says for whom, and how long"):
    if not shutil.which("openssl"):
        skip("no openssl")
    beam("cert", folder / "b", "--name", "beam.example", "--name=192.0.2.7", "--name", "2001:db8::1", "--name",
         "beam.example", "--client", "uri:spiffe://example/ada", "--days", 7)
    text = openssl("x509", "-in", folder / "b/server.pem", "-noout", "-ext", "subjectAltName")
    equal(re.findall(r"(?:DNS|IP Address):[^,\s]+", text),
          ["DNS:beam.example", "IP Address:192.0.2.7", "IP Address:2001:DB8:0:0:0:0:0:1"])
    contains(openssl("x509", "-in", folder / "b/client.pem", "-noout", "-ext", "subjectAltName"),
             "URI:spiffe://example/ada")
    for who in ("ca", "server", "client"):
        openssl("x509", "-in", folder / f"b/{who}.pem", "-noout", "-checkend", 5 * 86400)
        openssl("x509", "-in", folder / f"b/{who}.pem", "-noout", "-checkend", 8 * 86400, code=1)
    handshake(folder / "b", "beam.example")

with case("cert replaces nothing unless it is told to"):
    for name in sorted(FILES):
        place = folder / f"one-{name}"
        place.mkdir()
        (place / name).write_text("mine")
        result = beam("cert", place, code=LIMIT)
        contains(result.errors, f"{name} is there already; --force")
        equal(content(place), {name: b"mine"})
    place = folder / "link"
    place.mkdir()
    (place / "client.key").symlink_to(place / "nowhere")
    beam("cert", place, code=LIMIT)
    equal(os.listdir(place), ["client.key"])
    before = content(folder / "a")
    beam("cert", folder / "a", code=LIMIT)
    equal(content(folder / "a"), before)

with case("cert --force replaces all of it, modes and links too"):
    place = folder / "link"
    (place / "mine").write_text("mine")
    (place / "ca.key").symlink_to(place / "mine")
    (place / "server.key").write_text("")
    (place / "server.key").chmod(0o666)
    beam("cert", place, "--force")
    equal(set(content(place)), FILES | {"mine"})
    equal((place / "mine").read_text(), "mine")
    check(not (place / "ca.key").is_symlink(), "the link is still there")
    equal((place / "server.key").stat().st_mode & 0o777, 0o600)
    handshake(place, "localhost")

with case("cert: names that are none, and a directory that is none"):
    for words in (["--name", ""], ["--name", "x" * 256], ["--name", "ip:nonsense"], ["--client", ""],
                  ["--client", "x" * 64], ["--client", "uri:"], ["--days", "0"], ["--days", "36501"],
                  ["--name", "n" * 250, "--name", "m" * 250, "--name", "o" * 250, "--name", "p" * 250,
                   "--name", "q" * 250]):
        result = beam("cert", folder / "c", *words, code=USAGE)
        contains(result.errors, "beam: cert: ")
    check(not (folder / "c").exists(), "something was made")
    beam("cert", code=USAGE)
    beam("cert", folder / "c", folder / "d", code=USAGE)
    (folder / "file").write_text("")
    contains(beam("cert", folder / "file", code=OTHER).errors, "Not a directory")
    contains(beam("cert", folder / "no/where", code=OTHER).errors, "No such file")

with case("cert leaves nothing behind where it may not write"):
    if os.geteuid() == 0:
        # Root may; a folder that cannot be written to stands for it.
        contains(beam("cert", "/proc/self", code=None).errors, "beam: cert: /proc/self/ca.pem: ")
    else:
        (folder / "shut").mkdir(0o500)
        beam("cert", folder / "shut", code=PERMISSION)

with case("cert's commands can be pasted, whatever the folder is called"):
    place = folder / "it's a $(folder)"
    text = beam("cert", place).text
    command = next(line for line in text.splitlines() if "beam serve" in line)
    out = subprocess.run(["sh", "-c", f"printf '%s\\n' {command}"], stdout=subprocess.PIPE, timeout=30, text=True)
    check(f"{place}/server.pem" in out.stdout.splitlines(), out.stdout)

with case("version names the TLS library"):
    check(re.search(r"^TLS: wolfSSL \d+\.\d+\.\d+(, .+)?$", beam("--version").text, re.M), "it does not")

scratch.cleanup()
finish()
