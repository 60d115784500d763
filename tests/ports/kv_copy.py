"""A copy of a store, or of the keys in it that begin with a prefix, after docs/spec/kv.md, level 2: documents alone.

    with Session.connect("/run/x") as session:              # beam.py
        copy = Copy()
        for kind in copy.follow(session):                   # after each message; ends with the watch, or by break
            print(copy.rev, copy.state)
    with Session.connect("/run/x") as session:              # later: goes on where it was, if that can be had
        for kind in copy.follow(session): ...
"""
import contextlib
import kv

class Stale(Exception): "A revision is missing: what the copy holds is no state of the store; follow() again."

class Copy:
    def __init__(self, prefix=""):
        self.prefix, self.state, self.epoch, self.rev = prefix, {}, None, None  # epoch None: no state yet
        self.now, self.skipped = None, 0                    # how far the store was; revisions that were passed over
        self.behind, self.coming, self.building = None, None, None      # of the messages: revision, epoch, snapshot

    def follow(self, session, service="kv.watch", timeout=None):
        ask = {"prefix": self.prefix} if self.prefix else {}
        ask |= {"epoch": self.epoch, "rev": self.rev} if self.epoch else {}
        with contextlib.closing(session.stream(service, None, kv.encode(ask), timeout=timeout)) as messages:
            for _, body, _ in messages:
                message = kv.decode(body)
                kv.check(max(message.get("rev", 0), message.get("now", 0)) < 2**63, "NUMBER")       # Y1
                getattr(self, "take_" + message["kind"], lambda **_: None)(**message)       # others may come one day
                yield message["kind"]

    def take_head(self, epoch, rev, resume, skipped=0, **_):
        self.coming, self.now, self.skipped = epoch, rev, self.skipped + skipped
        self.building = None if resume else {}              # beside the state, which is read until it is complete
        self.behind = self.rev if resume else rev
        if resume and epoch != self.epoch:
            raise Stale(f"resumed in epoch {epoch}")

    def take_snap(self, set, **_):
        self.building.update(set)

    def take_live(self, rev, **_):
        self.state, self.building, self.epoch = self.building, None, self.coming
        self.reach(rev)

    def take_delta(self, rev, delete=(), set={}, **_):
        if rev != self.behind + 1 and not self.prefix or rev <= self.behind:
            self.epoch = None                               # nothing to resume from
            raise Stale(f"revision {rev} came behind {self.behind}")
        target = self.state if self.building is None else self.building
        for key in delete:
            target.pop(key, None)
        target.update(set)
        self.reach(rev)

    def take_mark(self, rev, now, **_):
        self.reach(rev, now)

    def reach(self, rev, now=0):
        self.behind, self.now = rev, max(self.now, rev, now)
        if self.building is None:
            self.rev = rev
