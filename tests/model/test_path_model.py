"""Who waits for room in a full ring hears of it, and the model can fail: path.pml."""
import sys

sys.dont_write_bytecode = True
from model import FAILS, HOLDS, check  # noqa: E402

check("path", [
    ("-DVARIANT=0", HOLDS, "whoever waits for room hears of it"),
    ("-DVARIANT=1", FAILS, "a plain look by the consumer misses the question"),
    ("-DVARIANT=1 -DSC", HOLDS, "... by its ordering alone"),
    ("-DVARIANT=2", FAILS, "a plain question is missed"),
    ("-DVARIANT=2 -DSC", HOLDS, "... by its ordering alone"),
    ("-DVARIANT=3 -DSC", FAILS, "a question before the sleep is taken for older room"),
    ("-DVARIANT=4 -DSC", FAILS, "who does not ask is not answered"),
])
