"""The first C example of README.md is compiled like a user would, and run."""
import os
import pathlib
import re
import tempfile

from cases import ROOT, case, check, finish, run, start, static_library

start()
with case("README: the example compiles, runs and is about 20 lines"):
    example = re.search(r"^```c\n(.*?)^```", (ROOT / "README.md").read_text(), re.S | re.M)
    check(example, "README.md has no C example")
    code = example.group(1)
    lines = [line for line in code.splitlines() if line.strip()]
    check(len(lines) <= 30, f"the example has {len(lines)} lines")
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder, "example.c")
        source.write_text(code)
        program = pathlib.Path(folder, "example")
        run(os.environ.get("CC", "cc"), "-Wall", "-Wextra", "-Werror", "-I", ROOT / "include", source,
            *static_library(), "-o", program)
        output = run(program, cwd=folder, timeout=60)
    # What the README says it prints: the next block after the example.
    promised = re.match(r"\s*It prints\s*```text\n(.*?)^```",
                        (ROOT / "README.md").read_text()[example.end():], re.S | re.M)
    check(promised, "README.md does not say what the example prints")
    check(output == promised.group(1), f"it printed:\n{output}\nnot:\n{promised.group(1)}")
finish()
