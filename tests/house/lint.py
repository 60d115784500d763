"""Cheap checks over the tracked files, before anything is built."""
import re
import shutil
import subprocess

from cases import ROOT, case, check, finish, run, skip, start

# Package registries are reached through the system's own settings, never by a name of ours.
REGISTRIES = re.compile(r"(deb|ftp|security|snapshot)[.]debian[.]org|registry[.]npmjs|pypi[.]org"
                        r"|pythonhosted[.]org|proxy[.]golang|crates[.]io")

start()
tracked = run("git", "-c", "safe.directory=*", "-C", ROOT, "ls-files", "-co",
              "--exclude-standard").split("\n")
files = [ROOT / name for name in tracked if name and (ROOT / name).is_file()]
texts = {}
for path in files:
    try:
        texts[path] = path.read_text()
    except UnicodeDecodeError:
        pass  # a fuzz corpus
sources = [path for path in files if path.suffix in (".c", ".h")]


def lines_where(pattern, paths):
    return [f"{path.relative_to(ROOT)}:{number}: {line.strip()}" for path in paths
            for number, line in enumerate(texts.get(path, "").splitlines(), 1)
            if re.search(pattern, line)]


with case("clang-format would change nothing"):
    if not shutil.which("clang-format"):
        skip("clang-format is not installed")
    done = subprocess.run(["clang-format", "--dry-run", "-Werror", *map(str, sources)], cwd=ROOT,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wrong = sorted(set(re.findall(r"^(?:%s/)?(\S+?):\d+:\d+: error" % re.escape(str(ROOT)),
                                  done.stdout, re.M)))
    check(done.returncode == 0, "run clang-format -i on:\n" + ("\n".join(wrong) or done.stdout))

with case("no conflict markers"):
    wrong = lines_where(r"^(<{7} |>{7} |={7}$)", texts)
    check(not wrong, "\n".join(wrong))

with case("no trailing blanks, and a newline at the end"):
    wrong = lines_where(r"[ \t]+$", sources)
    wrong += [f"{path.relative_to(ROOT)}: no newline at the end" for path in sources
              if texts[path] and not texts[path].endswith("\n")]
    check(not wrong, "\n".join(wrong))

with case("no host name of a package registry"):
    wrong = lines_where(REGISTRIES, [path for path in texts if path.name != "lint.py"])
    check(not wrong, "\n".join(wrong))

with case("every .c file says at its top what it is"):
    # A unit test says it by its place and name.
    wrong = [str(path.relative_to(ROOT)) for path in sources
             if path.suffix == ".c" and not texts[path].startswith("/*")
             and ROOT / "tests/unit" not in path.parents]
    check(not wrong, "\n".join(wrong))
finish()
