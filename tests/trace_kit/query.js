// Loads a trace into Perfetto's trace_processor and prints what SQL finds there, a line of JSON for each statement:
//     node query.js ENGINE_FOLDER TRACE SQL…
// Exits with 3 if the trace does not load and with 4 at the first statement that fails.
'use strict';
const fs = require('fs');
const path = require('path');
const v8 = require('v8');
const protobuf = require('./protobuf.js');

const DOES_NOT_LOAD = 3;
const BAD_SQL = 4;
const PIECE = 16 << 20;

// Numbers of fields and methods: protos/perfetto/trace_processor/trace_processor.proto.
const STREAM = { message: 1 };
const RPC = {
  sequence: 1, request: 2, fatalError: 5,
  appendData: 101, queryArguments: 103, appendResult: 201, queryResult: 203, finalizeResult: 212,
};
const METHOD = { append: 1, finalize: 2, query: 3 };
const APPEND_RESULT = { error: 2 };
const QUERY_ARGUMENTS = { sql: 1 };
const QUERY_RESULT = { column: 1, error: 2, batch: 3 };
const FINALIZE_RESULT = { error: 1 };
const BATCH = { kinds: 1, integers: 2, floats: 3, blobs: 4, strings: 5 };
const KIND = { null: 1, integer: 2, float: 3, string: 4, blob: 5 };

class Failure extends Error {
  constructor(exitCode, message) {
    super(message);
    this.exitCode = exitCode;
  }
}

// The engine is made for a browser's worker: it gets what it looks for there, and is kept from seeing that this is
// node. It runs in this realm, not in a `vm` context, because it insists on this one's Uint8Array.
async function startEngine(folder, onReply) {
  // Else its 11 MB are compiled a second time, with more care, which takes longer than most statements do.
  v8.setFlagsFromString('--no-wasm-tier-up --no-wasm-dynamic-tiering');
  class XMLHttpRequest {
    open(method, url) { this.file = path.join(folder, path.basename(url)); }
    send() { this.response = fs.readFileSync(this.file); }
  }
  const quiet = { log() {}, warn() {}, error: console.error };
  const location = { href: 'http://localhost/' };
  const worker = { location };
  const seen = {
    self: worker, location, WorkerGlobalScope: Object, XMLHttpRequest, console: quiet, process: undefined,
  };
  const source = fs.readFileSync(path.join(folder, 'engine_bundle.js'), 'utf8');
  new Function(...Object.keys(seen), source)(...Object.values(seen));
  const port = { postMessage: onReply };
  worker.onmessage({ data: port });
  // The wasm is there by now; what readies it is a promise that has yet to be run.
  await new Promise(setImmediate);
  return bytes => port.onmessage({ data: bytes });
}

class TraceProcessor {
  constructor() {
    this.sent = 0;
    this.received = [];
  }

  async start(folder) {
    this.send = await startEngine(folder, bytes => this.received.push(bytes));
  }

  // What is received ends somewhere within a reply, but with the call all replies to it are there.
  call(method, ...content) {
    this.received = [];
    this.sent += 1;
    const request = [protobuf.integer(RPC.sequence, this.sent), protobuf.integer(RPC.request, method), ...content];
    this.send(protobuf.bytes(STREAM.message, Buffer.concat(request)));
    const replies = protobuf.values(Buffer.concat(this.received), STREAM.message);
    const fatal = replies.flatMap(reply => protobuf.values(reply, RPC.fatalError))[0];
    if (fatal !== undefined) throw new Error(`trace_processor: ${fatal}`);
    return replies;
  }

  load(trace) {
    for (let start = 0; start < trace.length; start += PIECE) {
      const piece = protobuf.bytes(RPC.appendData, trace.subarray(start, start + PIECE));
      refuse(DOES_NOT_LOAD, this.call(METHOD.append, piece), RPC.appendResult, APPEND_RESULT.error);
    }
    refuse(DOES_NOT_LOAD, this.call(METHOD.finalize), RPC.finalizeResult, FINALIZE_RESULT.error);
  }

  query(sql) {
    const statement = protobuf.bytes(QUERY_ARGUMENTS.sql, Buffer.from(sql));
    const replies = this.call(METHOD.query, protobuf.bytes(RPC.queryArguments, statement));
    refuse(BAD_SQL, replies, RPC.queryResult, QUERY_RESULT.error);
    const results = replies.flatMap(reply => protobuf.values(reply, RPC.queryResult));
    const columns = results.flatMap(result => protobuf.values(result, QUERY_RESULT.column)).map(String);
    const cells = results.flatMap(result => protobuf.values(result, QUERY_RESULT.batch)).flatMap(cellsOf);
    return { columns, cells };
  }
}

function refuse(exitCode, replies, result, error) {
  const results = replies.flatMap(reply => protobuf.values(reply, result));
  const errors = results.flatMap(found => protobuf.values(found, error));
  if (errors.length && errors[0].length) throw new Failure(exitCode, String(errors[0]));
}

// As text of JSON, since JSON.stringify cannot write integers beyond 2 ** 53, and a point in time is one. Bytes come as
// a string in base 64. That 3.0 stays a float is what the exponent is for.
function cellsOf(batch) {
  const integers = protobuf.packed(batch, BATCH.integers);
  const floats = protobuf.doubles(batch, BATCH.floats);
  const blobs = protobuf.values(batch, BATCH.blobs);
  const strings = protobuf.values(batch, BATCH.strings).flatMap(joined => String(joined).split('\0'));
  const next = { integer: 0, float: 0, blob: 0, string: 0 };
  const write = {
    [KIND.null]: () => 'null',
    [KIND.integer]: () => String(integers[next.integer++]),
    [KIND.float]: () => floats[next.float++].toExponential(),
    [KIND.blob]: () => JSON.stringify(blobs[next.blob++].toString('base64')),
    [KIND.string]: () => JSON.stringify(strings[next.string++]),
  };
  return protobuf.packed(batch, BATCH.kinds).map(kind => write[kind]());
}

function asJSON({ columns, cells }) {
  const rows = [];
  for (let start = 0; start < cells.length; start += columns.length) {
    rows.push(`[${cells.slice(start, start + columns.length).join(',')}]`);
  }
  return `{"columns":${JSON.stringify(columns)},"rows":[${rows.join(',')}]}`;
}

async function main([folder, file, ...statements]) {
  const processor = new TraceProcessor();
  await processor.start(folder);
  processor.load(fs.readFileSync(file));
  for (const sql of statements) process.stdout.write(`${asJSON(processor.query(sql))}\n`);
}

main(process.argv.slice(2)).catch(error => {
  console.error(error instanceof Failure ? error.message : error);
  process.exitCode = error.exitCode || 1;
});
