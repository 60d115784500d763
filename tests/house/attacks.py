"""Each attack of docs/attacks.md names the cases that do it, and each case of tests/attacks/ is named."""
import re

from cases import ROOT, case, check, finish, start

PAGE = ROOT / "docs/attacks.md"


def cases():
    found = set()
    for path in (ROOT / "tests/attacks").glob("test_*.c"):
        found |= set(re.findall(r"^TEST\((\w+)\)", path.read_text(), re.M))
    return found


start()
rows = re.findall(r"^\| (?!attack \||---)([^|]+) \|.*\| ([^|]+) \|$", PAGE.read_text(), re.M)
named = {name for _, names in rows for name in re.findall(r"`(\w+)`", names)}

with case("each row names a case"):
    bare = [row for row, names in rows if not re.search(r"`\w+`", names)]
    check(rows and not bare, f"without one: {bare}")

with case("the cases that are named exist"):
    check(not named - cases(), f"there is no {sorted(named - cases())}")

with case("the cases that exist are named"):
    check(not cases() - named, f"in no row: {sorted(cases() - named)}")
finish()
