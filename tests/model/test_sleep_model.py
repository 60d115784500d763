"""The sleep protocol holds in its model, over rings and over a mailbox, and the model can fail: sleep.pml."""
import sys

sys.dont_write_bytecode = True
from model import FAILS, HOLDS, check  # noqa: E402

check("sleep", [
    (f"{defines}{shape}", holds, text + where)
    for shape, where in (("", ""), (" -DMAILBOX", ", of a mailbox"))
    for defines, holds, text in (
        ("-DVARIANT=0", HOLDS, "the protocol loses no wake-up"),
        ("-DVARIANT=1", FAILS, "a plain store by the consumer loses one"),
        ("-DVARIANT=1 -DSC", HOLDS, "... by its ordering alone"),
        ("-DVARIANT=2", FAILS, "a plain look by the producer loses one"),
        ("-DVARIANT=2 -DSC", HOLDS, "... by its ordering alone"),
        ("-DVARIANT=3 -DSC", FAILS, "not looking again loses one"),
        ("-DVARIANT=4 -DSC", FAILS, "ringing late loses one"),
    )
])
