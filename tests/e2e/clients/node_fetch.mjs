// Node's own fetch, as an application without an SDK uses it. Arguments: base URL, number of calls.
const [base, calls] = process.argv.slice(2);

async function post(path, headers, body) {
  const response = await fetch(base + path, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
  await response.text();
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
}

const messages = [{ role: "user", content: "Name a prime above nine." }];
for (let n = 0; n < Number(calls); n += 1) {
  await post("/v1/chat/completions", { authorization: "Bearer sk-test-node" }, { model: "gpt-4o", messages });
  await post(
    "/v1/chat/completions",
    { authorization: "Bearer sk-test-node" },
    { model: "gpt-4o", messages, stream: true, stream_options: { include_usage: true } },
  );
  await post(
    "/v1/messages",
    { "x-api-key": "sk-ant-test-node", "anthropic-version": "2023-06-01" },
    { model: "claude-haiku-4-5", max_tokens: 64, messages },
  );
}
