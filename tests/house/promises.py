"""Each promise of docs/promises.md names the tests that hold it, and they exist."""
import re

from cases import ROOT, case, check, finish, start

PAGE = ROOT / "docs/promises.md"


def names_of(path):
    """The cases a test file has."""
    text = (ROOT / path).read_text()
    if path.endswith(".py"):
        return set(re.findall(r"^(?:async )?def (\w+)\(", text, re.M))
    return set(re.findall(r"^\w*TEST\w*\((\w+)\)", text, re.M))


def promises():
    """(heading, [(file, [case])]) of each section whose heading has a number."""
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.M)[1:]:
        heading, _, body = section.partition("\n")
        if re.match(r"P\d+\. ", heading):
            items = re.findall(r"^\* `(tests/[^`]+)`:(.*(?:\n  .*)*)", body, re.M)
            yield heading, [(path, re.findall(r"`([^`]+)`", rest)) for path, rest in items]


start()
found = list(promises())

with case("the promises are numbered without gaps"):
    numbers = [int(re.match(r"P(\d+)", heading).group(1)) for heading, _ in found]
    check(numbers and numbers == list(range(1, len(numbers) + 1)), f"they are {numbers}")

for heading, tests in found:
    with case(heading):
        check(tests, "names no test")
        wrong = []
        for path, names in tests:
            if not (ROOT / path).is_file():
                wrong.append(f"{path}: there is no such file")
                continue
            if not names:
                wrong.append(f"{path}: none of its cases is named")
            known = names_of(path)
            wrong += [f"{path}: has no case {name}" for name in names if name not in known]
        check(not wrong, "\n".join(wrong))

with case("no case stands where it is not read as one"):
    read = [name for _, tests in found for _, names in tests for name in names]
    spans = re.findall(r"`(\w+_\w+_\w+_\w+)`", PAGE.read_text())
    stray = [name for name in spans if name not in read]
    check(not stray, "\n".join(stray))
finish()
