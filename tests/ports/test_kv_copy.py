"""A copy of a store over the wire, by a client of one page (kv_copy.py, beam.py): level 2 of docs/spec/kv.md.

    test_kv_copy.py [BEAM]       the `beam` program, or the environment's BEAM_PROGRAM
"""
import contextlib
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time

# The counts are those of the closing line; whoever runs this script records them.
os.environ.pop("BEAM_TEST_RESULTS", None)
sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "house"))
from cases import case, check, finish  # noqa: E402
import kv  # noqa: E402
from beam import BeamError, Session  # noqa: E402
from kv_copy import Copy, Stale  # noqa: E402

BEAM = sys.argv[1] if len(sys.argv) > 1 else os.environ["BEAM_PROGRAM"]
PATIENCE = 60           # seconds; only a hang is longer
ABORTED = 10

if not re.search(r"^ +kv\b", subprocess.run([BEAM, "serve", "--help"], capture_output=True, text=True).stdout, re.M):
    print("beam serve has no service kv")
    sys.exit(77)


@contextlib.contextmanager
def serving():
    """The path of a socket where an empty store is served."""
    with tempfile.TemporaryDirectory(prefix="beam-copy-") as folder:
        path = f"{folder}/s"
        program = subprocess.Popen([BEAM, "serve", "kv", "--listen", f"unix:{path}", "--quiet"])
        try:
            while True:
                try:
                    Session.connect(path).lose("it listens")
                    break
                except (FileNotFoundError, ConnectionRefusedError):
                    check(program.poll() is None, f"beam serve ended with {program.returncode}")
                    time.sleep(0.01)
            yield path
        finally:
            program.terminate()
            program.wait(PATIENCE)


def ask(session, service, **argument):
    _, body, _ = session.call(f"kv.{service}", None, kv.encode(argument), timeout=PATIENCE)
    return kv.decode(body)


def until(copy, session, rev):
    """Follows to that revision: the kinds of messages on the way."""
    kinds = []
    for kind in copy.follow(session, timeout=PATIENCE):
        kinds.append(kind)
        if copy.building is None and copy.rev is not None and copy.rev >= rev:
            return kinds
    raise AssertionError(f"the watch ended after {kinds}")


def everything(session, prefix=""):
    entries, after = {}, ""
    while True:
        answer = ask(session, "scan", prefix=prefix, limit=7, **{"after": after} if after else {})
        entries |= answer["entries"]
        if not answer["more"]:
            return entries
        after = answer.get("after") or max(entries, key=str.encode)


def random_change(rng, session):
    keys = [rng.choice("ab") + "/" + rng.choice("klmnopqrst") for _ in range(rng.randint(1, 4))]
    delete = sorted(set(keys[rng.randint(0, len(keys)):]))
    values = {key: rng.choice((None, rng.getrandbits(62), "é" * rng.randint(0, 9), [1.5, {"x": b"y"}]))
              for key in keys if key not in delete}
    return ask(session, "txn", set=values, delete=delete)["rev"]


with case("a copy begins with what is there, and follows each change"):
    with serving() as path, Session.connect(path) as writer, Session.connect(path) as reader:
        ask(writer, "put", key="a", value=1)
        ask(writer, "put", key="b", value={"c": [True]})
        copy, seen = Copy(), []
        for kind in copy.follow(reader, timeout=PATIENCE):
            if kind != "mark":
                seen.append((kind, copy.rev))
            if seen[-1] == ("live", 2):
                check(copy.state == {"a": 1, "b": {"c": [True]}}, f"{copy.state}")
                ask(writer, "delete", key="a")
                ask(writer, "txn", set={"d": "x"}, delete=["b"])
            if copy.rev == 4:
                break
        check(seen[-3:] == [("live", 2), ("delta", 3), ("delta", 4)], f"{seen}")
        check(copy.state == {"d": "x"} == everything(writer), f"{copy.state}")

with case("of an empty store there is an empty copy at once"):
    with serving() as path, Session.connect(path) as session:
        copy = Copy()
        kinds = until(copy, session, 0)
        check(kinds == ["head", "live"] and copy.state == {} and copy.rev == 0, f"{kinds}, {copy.rev}")

with case("copies of all, and of a prefix, are what the store holds after random changes, resumed and anew"):
    with serving() as path, Session.connect(path) as writer:
        rng, copies, resumed = random.Random(1), [Copy(), Copy("a/"), Copy("a/k")], 0
        for _ in range(12):
            for _ in range(rng.randint(1, 20)):
                random_change(rng, writer)
            # a change to each prefix: a copy hears of it, and then has all before it
            rev = ask(writer, "txn", set={"a/k": rng.getrandbits(40), "b/k": rng.getrandbits(40)})["rev"]
            for copy in copies:
                had = copy.epoch is not None
                with Session.connect(path) as reader:
                    kinds = until(copy, reader, rev)
                resumed += had
                check(("snap" in kinds) != had, f"{had}: {kinds}")
                check(copy.state == everything(writer, copy.prefix), f"{copy.prefix!r}: {copy.state}")
        check(resumed == 33, f"{resumed}")

with case("a copy is right though the store changes while it is sent"):
    with serving() as path, Session.connect(path) as writer, Session.connect(path) as reader:
        rng, copy, kinds = random.Random(2), Copy(), []
        for n in range(0, 400, 20):
            rev = ask(writer, "txn", set={f"{key:03}": f"{key:03}" * 1000 for key in range(n, n + 20)})["rev"]
        for kind in copy.follow(reader, timeout=PATIENCE):
            kinds.append(kind)
            if kind == "snap":
                gone, new = rng.sample(range(400), 3), rng.sample(range(400, 800), 3)
                rev = ask(writer, "txn", set={f"{key:03}": "new" for key in new},
                          delete=[f"{key:03}" for key in sorted(gone)])["rev"]
            if copy.building is None and copy.rev == rev:
                break
        check(kinds.count("snap") > 4 and "delta" in kinds[:kinds.index("live")], f"{kinds}")
        check(copy.state == everything(writer), f"{len(copy.state)} keys")

with case("a copy of another store's epoch is not gone on with"):
    copy = Copy()
    with serving() as path, Session.connect(path) as session:
        until(copy, session, ask(session, "put", key="old", value=1)["rev"])
    epoch = copy.epoch
    with serving() as path, Session.connect(path) as session:
        kinds = until(copy, session, ask(session, "put", key="new", value=2)["rev"])
        check("snap" in kinds and copy.epoch != epoch and copy.state == {"new": 2}, f"{kinds}, {copy.state}")

with case("a copy that does not read skips to the latest state, and is told by how much"):
    with serving() as path, Session.connect(path) as writer, Session.connect(path) as reader:
        copy, large, rev = Copy(), "x" * 500_000, 0
        for kind in copy.follow(reader, timeout=PATIENCE):
            if kind == "live" and rev == 0:
                for n in range(40):                         # five times what is kept for those who follow
                    rev = ask(writer, "put", key=f"{n % 3}", value=f"{n}{large}")["rev"]
            if copy.building is None and copy.rev == rev > 0:
                break
        check({key: value[:2] for key, value in copy.state.items()} == {"0": "39", "1": "37", "2": "38"},
              f"{[value[:9] for value in copy.state.values()]}")
        check(0 < copy.skipped < 40, f"{copy.skipped} revisions were skipped")

with case("a change of what has changed is refused, with the key and its revision"):
    with serving() as path, Session.connect(path) as session:
        first = ask(session, "put", key="k", value=1)["rev"]
        second = ask(session, "put", key="k", value=2, seen=first)["rev"]
        try:
            ask(session, "put", key="k", value=3, seen=first)
            check(False, "it was taken")
        except BeamError as error:
            check(error.code == ABORTED and error.details.get("key") == "k" and error.details.get("rev") == second,
                  f"{error}, {error.details}")
        check(ask(session, "get", key="k")["value"] == 2, "it was changed")

with case("a copy notices that a revision is missing, and has nothing to resume from then"):
    copy = Copy()
    copy.take_head("1122334455667788", 7, False)
    copy.take_snap(set={"a": 1}, rev=7)
    copy.take_delta(8, set={"b": 2})
    check(copy.state == {} and copy.epoch is None, "there is no state before it is live")
    copy.take_live(8)
    check(copy.state == {"a": 1, "b": 2} and copy.rev == 8, f"{copy.state}")
    for rev in (8, 10):
        copy.epoch = "1122334455667788"
        try:
            copy.take_delta(rev, delete=["a"])
            check(False, f"{rev} was taken behind 8")
        except Stale:
            check(copy.epoch is None and copy.state == {"a": 1, "b": 2}, f"{copy.state}")

with case("a scan goes on where an answer says, or else behind its last key"):
    class Pages:
        def call(self, service, meta, body, timeout):
            answers = {None: ({"a": 1}, True), "a": ({"b": 2}, True, "k"), "k": ({}, True, "m"), "m": ({"n": 3}, False)}
            entries, more, *after = answers[kv.decode(body).get("after")]
            answer = {"entries": entries, "more": more} | ({"after": after[0]} if after else {})
            return None, kv.encode(answer), ()
    got = everything(Pages())
    check(got == {"a": 1, "b": 2, "n": 3}, f"{got}")

with case("a revision that none can be is refused"):
    class Owner:
        def stream(self, *_, **__):
            yield 0, kv.encode({"kind": "head", "epoch": "1122334455667788", "rev": 1, "resume": False}), ()
            yield 0, kv.encode({"kind": "live", "rev": 1}), ()
            yield 0, kv.encode(self.last), ()
    for name in ("rev", "now"):
        copy, owner = Copy(), Owner()
        owner.last = {"kind": "mark", "rev": 1, "now": 1} | {name: 2**63}
        try:
            for _ in copy.follow(owner):
                pass
            check(False, f"{name} was taken")
        except kv.KvError as error:
            check(str(error) == "KV_NUMBER" and copy.rev == copy.now == 1, f"{error}, {copy.rev}, {copy.now}")
finish()
