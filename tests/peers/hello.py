"""The first bytes of a session, for clients that know no more of it (docs/spec/http.md, S3)."""
from cases import check

# HELLO of an opener, with no keys but those it must have: tests/vectors.
HELLO = ("000000000000000038000000010000003000000000000900060000000400070"
         "06f70656e6572726f6c650000000000000800000007000400010000000000000076657273696f6e00")
KIND = 1


def check_hello(got):
    """What such a client was answered with begins with a HELLO, too."""
    came = bytes.fromhex(got["came"])
    check(len(came) >= 16 and came[:8] == bytes(8) and came[12] == KIND, f"no HELLO: {got}")


def check_session(got):
    """The same, of a client of HTTP/2, and all around it."""
    check(got["headers"][":status"] in ("200", 200) and got["headers"].get("beam-version") == "1", f"{got}")
    check(len(got["headers"].get("beam-session", "")) == 22 and got["end"] == "end", f"{got}")
    check_hello(got)
