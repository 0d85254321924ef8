// The few parts of the protobuf wire format that trace_processor's remote calls need.
// Source: https://protobuf.dev/programming-guides/encoding/
'use strict';

const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;

function varint(number) {
  const groups = [];
  for (; number > 127; number = Math.floor(number / 128)) groups.push(number % 128 | 128);
  return Buffer.from([...groups, number]);
}

function integer(field, number) {
  return Buffer.concat([varint(field << 3 | VARINT), varint(number)]);
}

function bytes(field, content) {
  return Buffer.concat([varint(field << 3 | BYTES), varint(content.length), content]);
}

// -> [a signed 64-bit BigInt, where it ends]
function readVarint(buffer, start) {
  let number = 0n;
  for (let at = start, shift = 0n; ; at += 1, shift += 7n) {
    number |= BigInt(buffer[at] & 127) << shift;
    if (buffer[at] < 128) return [BigInt.asIntN(64, number), at + 1];
  }
}

// The contents of each occurrence of a bytes, string or message field.
function values(buffer, field) {
  const found = [];
  for (let at = 0; at < buffer.length;) {
    const [tag, afterTag] = readVarint(buffer, at);
    const [number, wireType] = [Number(tag >> 3n), Number(tag & 7n)];
    if (wireType === VARINT) {
      [, at] = readVarint(buffer, afterTag);
    } else if (wireType === FIXED64) {
      at = afterTag + 8;
    } else if (wireType === BYTES) {
      const [length, start] = readVarint(buffer, afterTag);
      at = start + Number(length);
      if (number === field) found.push(buffer.subarray(start, at));
    } else {
      throw new Error(`wire type ${wireType} was not expected`);
    }
  }
  return found;
}

function packed(message, field) {
  const numbers = [];
  for (const content of values(message, field)) {
    for (let at = 0; at < content.length;) {
      const [number, end] = readVarint(content, at);
      numbers.push(number);
      at = end;
    }
  }
  return numbers;
}

function doubles(message, field) {
  const numbers = [];
  for (const content of values(message, field)) {
    for (let at = 0; at < content.length; at += 8) numbers.push(content.readDoubleLE(at));
  }
  return numbers;
}

module.exports = { integer, bytes, values, packed, doubles };
