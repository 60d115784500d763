// Answers for documents that come over a pipe, by kv.mjs (or another file in its place): see kv_answers.py.
import fs from "node:fs";
import { toJson } from "./kv_json.mjs";

const { decode, encode, KvError } = await import(process.argv[2] ?? new URL("kv.mjs", import.meta.url));

function answer(bytes) {
  try {
    const value = decode(bytes);
    return Buffer.concat([Buffer.from(toJson(value) + "\0"), encode(value)]);
  } catch (error) {
    return Buffer.from(error instanceof KvError ? error.message : `!${error}`);
  }
}

function* blocks(batch) {
  for (let pos = 0, next; pos < batch.length; pos = next) {
    next = pos + 4 + batch.readUInt32LE(pos);
    yield batch.subarray(pos + 4, next);
  }
}

function framed(bytes) {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(bytes.length);
  return Buffer.concat([length, bytes]);
}

function readAll(size) {
  const bytes = Buffer.alloc(size);
  for (let got = 0; got < size;) {
    const more = fs.readSync(0, bytes, got, size - got);
    if (more === 0) process.exit(0);
    got += more;
  }
  return bytes;
}

function writeAll(bytes) {
  for (let put = 0; put < bytes.length;) put += fs.writeSync(1, bytes, put);
}

for (;;) {
  const batch = readAll(readAll(4).readUInt32LE());
  writeAll(framed(Buffer.concat([...blocks(batch)].map((bytes) => framed(answer(bytes))))));
}
