"""Each public header alone, as C11 and as C++17, with every warning an error: what a user's own
compiler settings may make of it."""
import shutil

from cases import ROOT, case, check, finish, run, start

# No -Wshadow in C++, which minds a function named like a struct; stat(2) is one too.
C = ["-x", "c", "-std=c11", "-pedantic", "-Wshadow"]
CXX = ["-x", "c++", "-std=c++17", "-pedantic"]
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wundef", "-Werror", "-fsyntax-only"]
COMPILERS = [("gcc", C), ("g++", CXX), ("clang", C), ("clang++", CXX)]

start()
headers = sorted((ROOT / "include/beam").glob("*.h"))
found = [(name, flags) for name, flags in COMPILERS if shutil.which(name)]

with case("a C and a C++ compiler are here"):
    names = [name for name, _ in found]
    check({"gcc", "clang"} & set(names) and {"g++", "clang++"} & set(names), f"only {names}")

for header in headers:
    name = f"beam/{header.name}"
    with case(f"{name} stands alone in C11 and C++17"):
        for compiler, flags in found:
            # Twice: the include guard is part of it. And a declaration: ISO C wants one a file.
            run(compiler, *flags, *WARNINGS, "-I", ROOT / "include", "-",
                input=f"#include <{name}>\n#include <{name}>\nextern int more;\n")

# net.h goes with a library of its own.
with case("beam/beam.h includes every public header of libbeam"):
    text = (ROOT / "include/beam/beam.h").read_text()
    missing = [h.name for h in headers
               if h.name not in ("beam.h", "export.h", "net.h") and f"<beam/{h.name}>" not in text]
    check(not missing, f"not in beam.h: {missing}")
finish()
