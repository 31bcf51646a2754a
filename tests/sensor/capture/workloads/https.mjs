// node as both ends: an HTTPS server and fetch, or https.request. Usage: https.mjs CERT KEY MODE CALLS SIZE
import { createServer, request } from "node:https";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

const [certificate, key, mode, calls, size] = process.argv.slice(2);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
console.log("ready");
await lines.next();

process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0";
process.removeAllListeners("warning");
process.on("warning", () => {});
const server = createServer({ cert: readFileSync(certificate), key: readFileSync(key) }, (incoming, outgoing) => {
  const pieces = [];
  incoming.on("data", (piece) => pieces.push(piece));
  incoming.on("end", () => outgoing.end(Buffer.concat(pieces)));
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const url = `https://localhost:${server.address().port}/v1/echo`;
const body = "x".repeat(Number(size)) + "END";

function classic() {
  return new Promise((done, failed) => {
    const call = request(url, { method: "POST", agent: false }, (answer) => {
      const pieces = [];
      answer.on("data", (piece) => pieces.push(piece));
      answer.on("end", () => done(Buffer.concat(pieces).toString()));
    });
    call.on("error", failed);
    call.end(body);
  });
}

let same = 0;
for (let number = 0; number < Number(calls); number++) {
  const answer = mode === "fetch" ? await (await fetch(url, { method: "POST", body })).text() : await classic();
  if (answer === body) same++;
}
server.closeAllConnections();
server.close();
console.log(JSON.stringify({ same, body: body.length }));
await lines.next();
process.exit(0);
