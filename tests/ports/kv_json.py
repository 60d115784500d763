"""Values of kv.py as JSON text: docs/spec/kv.md, K15."""
import base64, decimal, json


def number_text(value):
    """As Number::toString of ECMAScript, and .0 where that looks like an integer."""
    sign, digits, exponent = decimal.Decimal(repr(value)).normalize().as_tuple()
    d, point = "".join(map(str, digits)), len(digits) + exponent
    if value == 0:
        text, sign = "0", repr(value)[0] == "-"
    elif len(d) <= point <= 21:
        text = d + "0" * (point - len(d))
    elif 0 < point <= 21:
        text = d[:point] + "." + d[point:]
    elif -6 < point <= 0:
        text = "0." + "0" * -point + d
    else:
        text = d[0] + ("." + d[1:] if d[1:] else "") + f"e{point - 1:+d}"
    return "-" * sign + text + ("" if "." in text or "e" in text else ".0")


def json_text(value):
    if isinstance(value, float):
        special = "nan" if value != value else {float("inf"): "inf", float("-inf"): "-inf"}.get(value)
        return json_text({"$float": special}).replace("$$", "$") if special else number_text(value)
    if isinstance(value, bytes):
        return '{"$bytes":"' + base64.b64encode(value).decode() + '"}'
    if isinstance(value, list):
        return "[" + ",".join(map(json_text, value)) + "]"
    if isinstance(value, dict):
        more = "$" if len(value) == 1 and next(iter(value)).startswith("$") else ""
        return "{" + ",".join(f"{json_text(more + key)}:{json_text(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
