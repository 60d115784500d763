"""The table of layers in ARCHITECTURE.md against every #include line of the tree, in both directions:
an include that the table does not allow fails, and so does a permission nobody uses."""
import re

from cases import ROOT, case, check, finish, start

LAYERS = ("base", "kv", "uring", "runtime", "net/proto", "net", "cli", "examples", "bench")

# What the C library, the compiler and the kernel provide; everything else is a third party.
KERNEL_RING = "linux/io_uring.h"  # liburing's business, from wherever it comes
SYSTEM_FOLDERS = ("sys", "linux", "netinet", "arpa", "net", "asm", "sanitizer")
SYSTEM = set("""
    assert ctype dirent dlfcn elf endian errno execinfo fcntl fenv float ftw getopt glob grp immintrin
    inttypes limits locale math netdb nmmintrin poll pthread pwd sched semaphore setjmp signal
    spawn stdalign stdarg stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string strings
    syslog termios threads time uchar ucontext unistd x86intrin cpuid
    cstdlib cstring new vector
""".split())


def is_system(name):
    if name == KERNEL_RING:
        return False
    folder, slash, _ = name.partition("/")
    return folder in SYSTEM_FOLDERS if slash else name.removesuffix(".h") in SYSTEM


def read_table():
    """{layer: {column: set of allowed file names, or None for all}}; third parties likewise."""
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")]
            for line in (ROOT / "ARCHITECTURE.md").read_text().splitlines() if "|" in line]
    start_row = next(i for i, row in enumerate(rows) if row[0].startswith("may include"))
    header = rows[start_row][1:]
    table = {}
    for row in rows[start_row + 2:]:
        names = [name for name in re.split(r",\s*", row[0].replace("`", "")) if name]
        if len(row) != len(header) + 1 or not set(names) <= {*LAYERS, "include/beam"}:
            break
        allowed = {}
        for column, cell in zip(header, row[1:]):
            if column == "outside":
                # `header.h` `file.c` `file.h`; `other.h`
                for part in filter(None, cell.split(";")):
                    quoted = re.findall(r"`([^`]+)`", part)
                    if quoted:
                        allowed[quoted[0]] = set(quoted[1:]) or None
            elif cell:
                allowed[column] = set(re.findall(r"`([^`]+)`", cell)) or None
        for name in names:
            table[name] = allowed
    return table


def layer_of(path):
    """The layer a file or an included name belongs to: the longest folder that is one."""
    for layer in sorted((*LAYERS, "include/beam"), key=len, reverse=True):
        if path.startswith(layer + "/"):
            return layer
    return None


def includes(path):
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        found = re.match(r'\s*(?:#|%:)\s*include(?:_next)?\b\s*(?:([<"])([^>"]+)[>"])?', line)
        if found:
            yield number, found.group(1), found.group(2) or line.strip()


def target_of(bracket, name):
    """(column of the table, complaint)"""
    if not bracket:
        return None, "what it includes cannot be read here"
    if bracket == "<":
        if name.startswith("beam/"):
            return "include/beam", None
        return (None if is_system(name) else name), None
    layer = layer_of(name)
    if not layer or layer == "include/beam":
        return None, 'a private header is named from the root ("layer/file.h"), a public one in <>'
    return layer, None


start()
table = read_table()
sources = sorted(path for layer in (*LAYERS, "include/beam") for end in ("c", "h", "cpp") for path in (ROOT / layer).glob("*." + end))
used = set()

with case("the table in ARCHITECTURE.md names every layer"):
    missing = {*LAYERS, "include/beam"} - set(table)
    check(not missing, f"no row for {missing}")

for layer in ("include/beam", *LAYERS):
    files = [path for path in sources if path.parent == ROOT / layer]
    if not files:
        continue
    with case(f"{layer} includes only what the table allows"):
        wrong = []
        for path in files:
            for number, bracket, name in includes(path):
                column, complaint = target_of(bracket, name)
                where = f"{path.relative_to(ROOT)}:{number}: {name}"
                if complaint:
                    wrong.append(f"{where}: {complaint}")
                elif column and column != layer and column not in table[layer]:
                    wrong.append(f"{where}: {layer} may not include {column}")
                elif column and table[layer].get(column) and path.name not in table[layer][column]:
                    only = ", ".join(sorted(table[layer][column]))
                    wrong.append(f"{where}: only {only} may")
                elif not is_system(name) and column in table and not any(
                        (folder / name).exists() for folder in (ROOT, ROOT / "include")):
                    wrong.append(f"{where}: no such file")
                used.add((layer, column))
        check(not wrong, "\n".join(wrong))

with case("the table names no third party that is not used"):
    unused = [f"{layer}: {column}" for layer, allowed in table.items() for column in allowed
              if column.endswith(".h") and (layer, column) not in used
              and any(path.parent == ROOT / layer for path in sources)]
    check(not unused, "\n".join(unused))

with case("file names are unique among the layers"):
    seen = {}
    for path in sources:
        if path.parent.name not in ("beam", "examples"):
            seen.setdefault(path.stem, set()).add(str(path.parent.relative_to(ROOT)))
    double = {stem: sorted(where) for stem, where in seen.items() if len(where) > 1}
    check(not double, f"in several folders: {double}")
finish()
