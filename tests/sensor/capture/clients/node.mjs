// JavaScript's ways to call a TLS server, for node and bun. Usage: node.mjs MODE URL CA FILE...: posts each
// file, expects it back.
import { readFileSync } from "node:fs";

const [mode, url, ca, ...files] = process.argv.slice(2);
const trusted = readFileSync(ca);
const bodies = files.map((file) => readFileSync(file));

function collected(stream) {
  return new Promise((done, failed) => {
    const pieces = [];
    stream.on("data", (piece) => pieces.push(piece));
    stream.on("end", () => done(Buffer.concat(pieces)));
    stream.on("error", failed);
  });
}

async function useFetch() {
  // node takes the authority from NODE_EXTRA_CA_CERTS and does not know the option, which is bun's.
  const post = async (body) => {
    const answer = await fetch(url, { method: "POST", body, tls: { ca: trusted } });
    return Buffer.from(await answer.arrayBuffer());
  };
  return { post, close: () => {} };
}

async function useHttps() {
  const { Agent, request } = await import("node:https");
  const agent = new Agent({ keepAlive: true, ca: trusted });
  const post = (body) =>
    new Promise((done, failed) => {
      const call = request(url, { method: "POST", agent, headers: { "content-length": body.length } });
      call.on("response", (answer) => collected(answer).then(done, failed));
      call.on("error", failed);
      call.end(body);
    });
  return { post, close: () => agent.destroy() };
}

async function useHttp2() {
  const { connect } = await import("node:http2");
  const session = connect(url, { ca: trusted });
  const post = (body) => {
    const stream = session.request({ ":method": "POST", ":path": "/" });
    stream.end(body);
    return collected(stream);
  };
  return { post, close: () => new Promise((done) => session.close(done)) };
}

const client = await { fetch: useFetch, https: useHttps, http2: useHttp2 }[mode]();
for (const body of bodies) {
  const answer = await client.post(body);
  if (!answer.equals(body)) {
    console.error(`${answer.length} bytes came back of ${body.length}`);
    process.exit(1);
  }
}
await client.close();
process.exit(0);
