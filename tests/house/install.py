"""Installs into an empty prefix and builds a program against what was installed, the two ways users
do: with pkg-config and with find_package. Also: what the shared library exports."""
import errno
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from cases import ROOT, case, check, finish, run, start

CMAKE = sys.argv[1]
BUILD = pathlib.Path(os.environ["BEAM_BUILD_DIR"])
CC = os.environ.get("CC", "cc")

SOURCE = r"""
#include <stdio.h>
#include <beam/beam.h>
int main(void)
{
    const struct beam_codec *xml = beam_xml(); /* brings in expat, where there is any */
    beam_buffer out;
    beam_buffer_init(&out, 100);
    int r = beam_convert(&beam_json, &beam_msgpack, "[1]", 3, NULL, &out, NULL); /* data is exported, too */
    int bad = r < 0 || out.len != 2 || (xml && !xml->to_kv);
    beam_buffer_deinit(&out);
    return bad || puts(beam_strerror(-BEAM_EFRAME_KIND)) < 0;
}
"""
CMAKELISTS = """
cmake_minimum_required(VERSION 3.25)
project(user LANGUAGES C)
find_package(Beam @VERSION@ REQUIRED)
add_executable(shared user.c)
target_link_libraries(shared PRIVATE Beam::beam)
add_executable(static user.c)
target_link_libraries(static PRIVATE Beam::beam_static)
"""
LATER = r"""
#include <beam/beam.h>
const struct {
    struct beam_codec codec;
    long more;
} codec_module = {{sizeof(codec_module), BEAM_CODEC_APPLICATION, "later", "text/plain", 0, 0}, 1};
"""
NET = r"""
#include <stdio.h>
#include <beam/beam.h>
#include <beam/net.h>
int main(void)
{
    struct beam_certificate ca;
    int r = beam_certificate_make(
        &ca, &BEAM_CERTIFICATE_OPTIONS(.use = BEAM_CERTIFICATE_CA, .common_name = "CA"));
    beam_runtime *runtime = NULL;
    if (r >= 0) /* all of it: listening brings in the server, connecting the client */
        r = beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = BEAM_TRANSPORTS(&beam_unix, &beam_https)),
                             &runtime);
    if (r >= 0)
        r = beam_listen(runtime, "https://127.0.0.1:0",
                        &BEAM_LISTEN_OPTIONS(.net = &BEAM_NET_LISTEN(
                            .certificate = {.data = ca.pem, .len = sizeof(ca.pem)},
                            .key = {.data = "none", .len = 4}, .insecure_anonymous = true)));
    beam_runtime_free(runtime);
    return r != -BEAM_ETLS_CONFIGURATION || puts(beam_tls_library()) < 0;
}
"""
NET_CMAKELISTS = """
cmake_minimum_required(VERSION 3.25)
project(user LANGUAGES C)
find_package(Beam REQUIRED COMPONENTS net)
add_executable(net net.c)
target_link_libraries(net PRIVATE Beam::beam_net_static)
"""
PRINTS = "frame: unknown kind below 0x80\n"

start()
folder = tempfile.TemporaryDirectory()
home = pathlib.Path(folder.name)
prefix = home / "prefix"
user = home / "user"
user.mkdir()
(user / "user.c").write_text(SOURCE)

with case("install: headers, libraries, program and package files arrive"):
    run(CMAKE, "--install", BUILD, "--prefix", prefix)
    files = sorted(str(f.relative_to(prefix)) for f in prefix.rglob("*"))
    for wanted in (r"include/beam/beam\.h", r"lib.*/libbeam\.a", r"lib.*/libbeam\.so",
                   r"lib.*/libbeam\.so\.0\.\d+", r"lib.*/pkgconfig/beam\.pc",
                   r"lib.*/cmake/Beam/BeamConfig\.cmake", r"lib.*/libbeam-net\.a",
                   r"lib.*/pkgconfig/beam-net\.pc", r"lib.*/cmake/Beam/BeamNetTargets\.cmake", r"bin/beam", r".*/LICENSE"):
        check(any(re.fullmatch(wanted, f) for f in files), f"no {wanted} in:\n" + "\n".join(files))

with case("install: only public headers are installed"):
    installed = {f.name for f in (prefix / "include").rglob("*.h")}
    public = {f.name for f in (ROOT / "include/beam").glob("*.h")}
    check(installed == public, f"installed {installed ^ public} in one place only")

package = next(prefix.rglob("beam.pc"), prefix)
libdir = package.parent.parent
# The prefix in the .pc file is the configured one; this one is where the files were put today.
config = ["pkg-config", f"--define-variable=prefix={prefix}"]
environment = {**os.environ, "PKG_CONFIG_PATH": str(package.parent), "LD_LIBRARY_PATH": str(libdir)}

with case("install: a program builds through pkg-config, shared, and runs"):
    flags = run(*config, "--cflags", "--libs", "beam", env=environment).split()
    run(CC, "-Wall", "-Werror", user / "user.c", "-o", home / "shared", *flags)
    check(run(home / "shared", env=environment) == PRINTS, "prints something else")
    # A program finds the library it was built for: one whose interface is the same (CHANGELOG.md).
    version = run("pkg-config", "--modversion", "beam", env=environment).strip().split(".")
    soname = f"libbeam.so.{version[0]}" + (f".{version[1]}" if version[0] == "0" else "")
    check(f"{soname} =>" in run("ldd", home / "shared", env=environment), f"not linked with {soname}")

with case("install: a program builds through pkg-config --static, and runs"):
    flags = run(*config, "--static", "--cflags", "--libs", "beam", env=environment).split()
    flags = [str(libdir / "libbeam.a") if flag == "-lbeam" else flag for flag in flags]
    run(CC, "-Wall", "-Werror", user / "user.c", "-o", home / "static", *flags)
    check(run(home / "static") == PRINTS, "prints something else")

with case("install: a program builds through find_package, shared and static, and runs"):
    version = run("pkg-config", "--modversion", "beam", env=environment).strip()
    (user / "CMakeLists.txt").write_text(CMAKELISTS.replace("@VERSION@", version))
    run(CMAKE, "-G", "Ninja", "-S", user, "-B", home / "build", f"-DCMAKE_C_COMPILER={CC}",
        f"-DCMAKE_PREFIX_PATH={prefix}")
    run(CMAKE, "--build", home / "build")
    for program in ("shared", "static"):
        check(run(home / "build" / program) == PRINTS, f"{program} prints something else")

(user / "net.c").write_text(NET)
library = run(BUILD / "beam", "--version").split("TLS: ")[1].splitlines()[0] + "\n"

with case("install: a program with networks builds through pkg-config, static but for what is not ours, and runs"):
    flags = run(*config, "--cflags", "--libs", "beam-net", env=environment).split()
    run(CC, "-Wall", "-Werror", user / "net.c", "-o", home / "net", *flags)
    check(run(home / "net") == library, "names another library")
    check("libbeam" not in run("ldd", home / "net"), "linked with a shared libbeam")

with case("install: a program with networks builds through find_package, and runs"):
    away = home / "net-user"
    away.mkdir()
    (away / "net.c").write_text(NET)
    (away / "CMakeLists.txt").write_text(NET_CMAKELISTS)
    run(CMAKE, "-G", "Ninja", "-S", away, "-B", home / "net-build", f"-DCMAKE_C_COMPILER={CC}",
        f"-DCMAKE_PREFIX_PATH={prefix}")
    run(CMAKE, "--build", home / "net-build")
    check(run(home / "net-build" / "net") == library, "names another library")

with case("install: who uses libbeam alone gets no TLS library"):
    for program in ("shared", "static"):
        needed = run("ldd", home / program, env=environment)
        check(not re.search("wolfssl|nghttp2|wslay", needed), needed)
    symbols = run("nm", libdir / "libbeam.a")
    check(not re.search(r"wolfSSL_|nghttp2_|wslay_|llhttp_", symbols), "libbeam.a names a third party of net/")

with case("install: libbeam.so exports beam_* under BEAM_1 and nothing else"):
    table = run("nm", "-D", "--defined-only", libdir / "libbeam.so")
    names = [line.split()[-1] for line in table.splitlines()]
    foreign = [n for n in names if not re.fullmatch(r"beam_\w+@@BEAM_1|BEAM_1", n)]
    check(len(names) > 1, "exports nothing")
    check(not foreign, f"exports {foreign}")

with case("install: every exported function is declared in a public header"):
    declared = "".join(h.read_text() for h in (ROOT / "include/beam").glob("*.h"))
    undeclared = [n for n in names if n.startswith("beam_")
                  and not re.search(rf"\b{n.split('@')[0]}\b", declared)]
    check(not undeclared, f"not in include/beam: {undeclared}")
# A stranger's codec, and a program that loads it: neither knows anything of this tree.
flags = run(*config, "--cflags", "--libs", "beam", env=environment).split()
headers = run(*config, "--cflags", "beam", env=environment).split()
example = ROOT / "examples/codec_module"

with case("install: a codec builds as a module that the installed headers suffice for"):
    run(CC, "-Wall", "-Werror", "-shared", "-fPIC", example / "lines.c", "-o", home / "lines.so", *headers)

with case("install: a program loads the module, registers it and is asked in it"):
    run(CC, "-Wall", "-Werror", example / "host.c", "-o", home / "host", *flags)
    out = run(home / "host", home / "lines.so", env=environment)
    check(out == "in lines:\napple\nfig\npear\n", f"prints {out!r}")

with case("install: a module that wants what a later version has is refused"):
    (user / "later.c").write_text(LATER)
    run(CC, "-Wall", "-Werror", "-shared", "-fPIC", user / "later.c", "-o", home / "later.so", *headers)
    done = subprocess.run([home / "host", home / "later.so"], capture_output=True, text=True, env=environment)
    check(done.returncode == 1 and os.strerror(errno.E2BIG) in done.stderr, f"{done.returncode}: {done.stderr}")
folder.cleanup()
finish()
