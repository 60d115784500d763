// Values of kv.mjs as JSON text: docs/spec/kv.md, K15.
const NOT_FINITE = new Map([[Infinity, "inf"], [-Infinity, "-inf"], [NaN, "nan"]]);

export function toJson(value) {
  if (typeof value === "bigint") return String(value);
  if (NOT_FINITE.has(value)) return `{"$float":"${NOT_FINITE.get(value)}"}`;
  if (Object.is(value, -0)) return "-0.0";
  if (typeof value === "number") return String(value).replace(/^-?\d+$/, "$&.0");
  if (value instanceof Uint8Array) return `{"$bytes":"${Buffer.from(value).toString("base64")}"}`;
  if (Array.isArray(value)) return `[${value.map(toJson).join()}]`;
  if (!(value instanceof Map)) return JSON.stringify(value);
  const escape = (key) => value.size === 1 && key.startsWith("$") ? "$" + key : key;
  const member = ([key, item]) => JSON.stringify(escape(key)) + ":" + toJson(item);
  return `{${[...value].map(member).join()}}`;
}
