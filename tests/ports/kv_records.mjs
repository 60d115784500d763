// kv records and files, level 1, after docs/spec/kv.md: readHead(file), read(file, pos, epoch), follow(file), for readers.
// There is no XXH3 here: `sum(bytes, seed) -> BigInt` may be given; without it a damaged record passes for a good one.
import { check, encode, fromUtf8, KvError, read as readEntry } from "./kv.mjs";

export const [HEAD, SNAP, LIVE, DELTA, MARK, EARLY, CLOSED] = [1, 2, 3, 4, 5, 6, 7];
const NIL = 1, MAP = 9, DEL = 0x0b, RECORD = 0x10, MAX_SIZE = 2 ** 31 - 8;

// The entries as [key, value], in order; undefined: deleted. A del is checked as the nil it would be.
function readBody(body, kind) {
  const entries = [], copy = Buffer.from(body);
  for (let pos = 0, key = null, value; pos < body.length;) {
    const gone = kind === DELTA && body.length - pos >= 8 && body[pos + 6] === DEL;
    if (gone) copy[pos + 6] = NIL;
    [value, key, pos] = readEntry(copy, pos, copy.length, 2, MAP, key);
    entries.push([fromUtf8(key), gone ? undefined : value]);
  }
  return entries;
}

function recordAt(file, pos, seed, sum) {
  check(file.length - pos >= 8, "TRUNCATED");
  const vlen = file.readUInt32LE(pos), size = 8 + vlen;
  check(file.readUInt16LE(pos + 4) === 0 && file[pos + 6] === RECORD && vlen >= 16 && vlen % 8 === 0, "RECORD");
  check(size <= MAX_SIZE, "TOO_LARGE");
  check(size <= file.length - pos, "TRUNCATED");
  check(!sum || sum(file.subarray(pos, pos + vlen), seed) === file.readBigUInt64LE(pos + vlen), "SUM");
  const rev = file.readBigUInt64LE(pos + 8);
  check(rev < 2n ** 63n, "FORMAT");
  return { kind: file[pos + 7], rev, body: file.subarray(pos + 16, pos + vlen), size };
}

// The record at pos, or null where there are no more.
export function read(file, pos, epoch, sum) {
  if (pos === file.length || (file.length - pos >= 8 && file.readBigUInt64LE(pos) === 0n)) return null;
  const record = recordAt(file, pos, epoch, sum), entries = record.kind === SNAP || record.kind === DELTA;
  check(record.kind >= HEAD && record.kind <= CLOSED, "FORMAT");
  check(entries || record.kind === HEAD || record.body.length === 0, "FORMAT");
  return { ...record, body: entries ? readBody(record.body, record.kind) : [] };
}

export function readHead(file, sum) {
  check(file.length >= 8 && file[7] === HEAD, "FORMAT");
  let record;
  try { record = recordAt(file, 0, 0n, sum); } catch (error) {
    throw /SUM|TRUNCATED/.test(error.message) ? error : new KvError("KV_FORMAT");
  }
  const epoch = record.body.subarray(8, 16), wanted = encode(new Map([["epoch", epoch], ["format", 1n]])).subarray(8);
  check(record.body.equals(wanted) && epoch.some((byte) => byte !== 0), "FORMAT");
  return { ...record, body: epoch.readBigUInt64LE() };
}

// What may come next: R8, R9.
function mayCome(at, { kind, rev }) {
  if (kind === SNAP || kind === LIVE) return !at.live && rev === at.rev;
  if (kind === DELTA) return rev === at.rev + 1n;
  return kind > DELTA && at.live && rev <= at.rev && rev >= (kind === MARK ? at.durable : at.rev);
}

// What a file says, up to the place `end` where its records stop, and why they do (null: zeros, or no more).
export function follow(file, sum) {
  const at = { end: 0, stop: null, live: false, clean: false, state: new Map() };
  try {
    const head = readHead(file, sum);
    Object.assign(at, { epoch: head.body, rev: head.rev, durable: head.rev, end: head.size });
    for (let record; (record = read(file, at.end, at.epoch, sum)) !== null; at.end += record.size) {
      check(mayCome(at, record), "SEQUENCE");
      for (const [key, value] of record.body) value === undefined ? at.state.delete(key) : at.state.set(key, value);
      if (record.kind === DELTA) at.rev = record.rev;
      if (record.kind === LIVE || record.kind >= MARK) [at.live, at.durable] = [true, record.rev];
      at.clean = record.kind === CLOSED;
    }
  } catch (error) {
    if (!(error instanceof KvError)) throw error;
    at.stop = error.message;
  }
  return { ...at, error: at.live ? null : at.stop === "KV_FORMAT" ? "KV_FORMAT" : "KV_CORRUPT" };
}
