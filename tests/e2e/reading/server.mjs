// Says what a plan tells it to say, over HTTP/1.1 or HTTP/2, whichever the client negotiates.
//
// Usage: server.mjs PLAN CERTIFICATE KEY. PLAN is a list of {path, has, headers, pieces, trailers, unfinished}: the first whose
// path it is and all of whose `has` the request's body holds is the answer. Pieces are base64, each written on its own.
// What is unfinished is never ended: the client has to go.
// Prints the port, then a line of JSON for every request: which answer it got, over which version of HTTP.
import { readFileSync } from "node:fs";
import { createSecureServer } from "node:http2";

const [plan, certificate, key] = process.argv.slice(2);
const answers = JSON.parse(readFileSync(plan));
const options = { allowHTTP1: true, cert: readFileSync(certificate), key: readFileSync(key) };
const pause = () => new Promise((done) => setTimeout(done, 2));

async function bodyOf(request) {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  return Buffer.concat(pieces);
}

async function respond(request, response) {
  const body = await bodyOf(request);
  const path = decodeURIComponent(request.url.split("?")[0]);
  const number = answers.findIndex((answer) => answer.path === path && answer.has.every((has) => body.includes(has)));
  console.log(JSON.stringify({ answer: number, path, http: request.httpVersion }));
  if (number < 0) {
    response.writeHead(404).end();
    return;
  }
  const { headers, pieces, trailers, unfinished } = answers[number];
  const coding = headers["content-encoding"] ?? "identity";
  if (coding !== "identity" && !request.headers["accept-encoding"]?.includes(coding)) {
    response.writeHead(406).end();
    return;
  }
  response.writeHead(200, headers);
  for (const piece of pieces) {
    response.write(Buffer.from(piece, "base64"));
    await pause();
  }
  if (unfinished) return;
  response.addTrailers(trailers);
  response.end();
}

const server = createSecureServer(options, respond);
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
