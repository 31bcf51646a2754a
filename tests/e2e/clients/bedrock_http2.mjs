// Bedrock over HTTP/2, as the AWS SDK for JavaScript calls it: two streams at a time on one connection.
// Arguments: URL of the server, how often, models. After each round but the last it waits for a line.
import { connect } from "node:http2";
import { createInterface } from "node:readline";

const [url, rounds, ...models] = process.argv.slice(2);
const body = JSON.stringify({ messages: [{ role: "user", content: [{ text: "Name a prime above nine." }] }] });
const session = connect(url);

function converse(model) {
  const stream = session.request({
    ":method": "POST",
    ":path": `/model/${encodeURIComponent(model)}/converse-stream`,
    ":authority": "bedrock-runtime.us-east-1.amazonaws.com",
    "content-type": "application/json",
    authorization: "AWS4-HMAC-SHA256 Credential=AKIATESTTESTTESTTEST/20261123/us-east-1/bedrock/aws4_request",
  });
  stream.end(body);
  stream.resume();
  return new Promise((done, failed) => {
    stream.on("response", (headers) => headers[":status"] === 200 || failed(new Error(headers[":status"])));
    stream.on("end", done);
    stream.on("error", failed);
  });
}

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
for (let round = 1; round <= Number(rounds); round += 1) {
  await Promise.all(models.map(converse));
  if (round < Number(rounds)) {
    console.log(`round ${round}`);
    await lines.next();
  }
}
session.close();
process.stdin.destroy();
