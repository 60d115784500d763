// kv documents, level 0, after docs/spec/kv.md: encode(value) -> Buffer, decode(Uint8Array) -> value.
// nil, bool, int/uint, float, str, bytes, map, list: null, boolean, BigInt, Number, string, Uint8Array, Map, Array;
// so 1 is 1n and 1.0 is 1, and what was decoded is encoded to the same bytes. Bytes decoded are views.

const [NIL, FALSE, TRUE, INT, UINT, FLOAT, STR, BYTES, MAP, LIST] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
const MAX_SIZE = 2 ** 31 - 8, MAX_DEPTH = 32, MAX_KEY = 65535, NAN = 0x7ff8000000000000n, TWO_63 = 2n ** 63n;
const NOTHING = Buffer.alloc(0), utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export class KvError extends Error {}
export const check = (good, error) => { if (!good) throw new KvError("KV_" + error); };
const sizeOf = (vlen, klen) => 8 + 8 * Math.ceil((vlen + klen) / 8); // exact up to 2^53: nothing wraps

function toUtf8(string) {
  check(!/\p{Surrogate}/u.test(string), "UTF8"); // Buffer.from would put U+FFFD in its place
  return Buffer.from(string);
}

export function fromUtf8(bytes) {
  try { return utf8.decode(bytes); } catch { throw new KvError("KV_UTF8"); }
}

function typeAndData(value, depth) {
  const eight = Buffer.alloc(8);
  if (value === null) return [NIL, []];
  if (typeof value === "boolean") return [value ? TRUE : FALSE, []];
  if (typeof value === "string") return [STR, [toUtf8(value)]];
  if (value instanceof Uint8Array) return [BYTES, [value]];
  if (Array.isArray(value)) return [LIST, value.map((item) => encode(item, NOTHING, depth + 1))];
  if (value instanceof Map) {
    const entries = [...value].map(([key, item]) => [toUtf8(key), item]), order = ([a], [b]) => Buffer.compare(a, b);
    return [MAP, entries.sort(order).map(([key, item]) => encode(item, key, depth + 1))];
  }
  check(typeof value === "number" || (value >= -TWO_63 && value < 2n * TWO_63), "NUMBER");
  if (typeof value === "bigint") eight.writeBigUInt64LE(BigInt.asUintN(64, value));
  else if (Number.isNaN(value)) eight.writeBigUInt64LE(NAN);
  else eight.writeDoubleLE(value);
  return [typeof value === "number" ? FLOAT : value < TWO_63 ? INT : UINT, [eight]];
}

export function encode(value, key = NOTHING, depth = 1) {
  check(depth <= MAX_DEPTH, "DEPTH");
  const [type, data] = typeAndData(value, depth), vlen = data.reduce((sum, part) => sum + part.length, 0);
  check(key.length <= MAX_KEY && sizeOf(vlen, key.length) <= MAX_SIZE, "TOO_LARGE");
  const header = Buffer.of(0, 0, 0, 0, key.length & 255, key.length >> 8, type, 0);
  header.writeUInt32LE(vlen);
  return Buffer.concat([header, ...data, key], sizeOf(vlen, key.length)); // fills up with zeros
}

export function decode(bytes) {
  const buf = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const [value, , next] = read(buf, 0, buf.length, 1, null, null);
  check(next === buf.length, "TRAILING");
  return value;
}

export function read(buf, pos, end, depth, within, last) {
  check(depth <= MAX_DEPTH, "DEPTH");
  check(end - pos >= 8, "TRUNCATED");
  const vlen = buf.readUInt32LE(pos), klen = buf.readUInt16LE(pos + 4), type = buf[pos + 6], aux = buf[pos + 7];
  const size = sizeOf(vlen, klen), k = pos + 8 + vlen, next = pos + size;
  check(size <= MAX_SIZE, "TOO_LARGE");
  check(size <= end - pos, "TRUNCATED");
  check(type >= NIL && type <= LIST, "TYPE");
  check(aux === 0, "AUX");
  check(type <= TRUE ? vlen === 0 : type <= FLOAT ? vlen === 8 : type <= BYTES || vlen % 8 === 0, "LENGTH");
  check(buf.subarray(k + klen, next).every((byte) => byte === 0), "PADDING");
  const data = buf.subarray(pos + 8, k), key = buf.subarray(k, k + klen), entries = [];
  check(within === MAP || klen === 0, "KEY");
  fromUtf8(key);
  check(within !== MAP || last === null || Buffer.compare(key, last) > 0, "ORDER");
  check(type !== UINT || data.readBigUInt64LE() >= TWO_63, "NUMBER");
  check(type !== FLOAT || !Number.isNaN(data.readDoubleLE()) || data.readBigUInt64LE() === NAN, "NUMBER");
  for (let p = pos + 8, item, inner = null; type >= MAP && p < k; entries.push([fromUtf8(inner), item]))
    [item, inner, p] = read(buf, p, k, depth + 1, type, inner);
  const value = type <= TRUE ? [null, false, true][type - NIL]
    : type <= FLOAT ? data[["readBigInt64LE", "readBigUInt64LE", "readDoubleLE"][type - INT]]()
    : type <= BYTES ? (type === STR ? fromUtf8(data) : data)
    : type === MAP ? new Map(entries) : entries.map(([, item]) => item);
  return [value, key, next];
}
