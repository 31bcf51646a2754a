// Bedrock over HTTP/2, as the AWS SDK for JavaScript calls it: two streams at a time on one connection.
// Arguments: URL of the server, models.
import { connect } from "node:http2";

const [url, ...models] = process.argv.slice(2);
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

await Promise.all(models.map(converse));
session.close();
