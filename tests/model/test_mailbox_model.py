"""What a mailbox has accepted runs and nobody waits for ever, and the model can fail: mailbox.pml."""
import sys

sys.dont_write_bytecode = True
from model import FAILS, HOLDS, check  # noqa: E402

check("mailbox", [
    ("-DVARIANT=0", HOLDS, "what was accepted runs, and nobody waits for ever"),
    ("-DVARIANT=1", FAILS, "coming in by a plain store loses a call"),
    ("-DVARIANT=1 -DSC", HOLDS, "... by its ordering alone"),
    ("-DVARIANT=2 -DSC", FAILS, "looking before coming in loses a call"),
    ("-DVARIANT=3 -DSC", FAILS, "looking for room too late misses it"),
    ("-DVARIANT=4", FAILS, "a plain look for waiters misses one"),
    ("-DVARIANT=4 -DSC", HOLDS, "... by its ordering alone"),
    ("-DVARIANT=5 -DSC", FAILS, "shutting it in silence leaves who waits waiting"),
    ("-DVARIANT=6 -DSC", FAILS, "settling before shutting loses a call"),
])
