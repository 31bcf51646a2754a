// Team web: the chat beside the checkout, node's own fetch, streaming.

const around = (middle) =>
  Math.max(1, Math.round(middle * Math.exp(0.5 * (Math.random() + Math.random() + Math.random() - 1.5) * 2)));
const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000 * (0.5 + Math.random())));

for (;;) {
  const answer = await fetch(`${process.env.OPENAI_BASE_URL}/chat/completions`, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      authorization: `Bearer ${process.env.OPENAI_API_KEY}`,
      "x-local-provider": `input=${around(9_000)}; output=${around(900)}; delay_ms=150; gap_ms=30`,
    },
    body: JSON.stringify({
      model: "gpt-4.1",
      stream: true,
      stream_options: { include_usage: true },
      messages: [{ role: "user", content: "Where is my order?" }],
    }),
  });
  for await (const _ of answer.body);
  await pause(1.5);
}
