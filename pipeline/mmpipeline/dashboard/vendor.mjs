// Copies what the pages load from node_modules into static/vendor (`npm run build`, called at set-up).
// Listed one by one: a page loads exactly these files, each with its licence beside it.
import { copyFileSync, mkdirSync, rmSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { join } from "node:path";

const here = fileURLToPath(new URL(".", import.meta.url));
const modules = join(here, "../../../node_modules");
const vendor = join(here, "static/vendor");

const files = [
  ["echarts/dist/echarts.common.min.js", "echarts.js"],
  ["echarts/LICENSE", "echarts.LICENSE.txt"],
  ["htmx.org/dist/htmx.min.js", "htmx.js"],
  ["htmx.org/LICENSE", "htmx.LICENSE.txt"],
];

rmSync(vendor, { recursive: true, force: true });
mkdirSync(vendor, { recursive: true });
for (const [from, to] of files) {
  copyFileSync(join(modules, from), join(vendor, to));
  console.log(`${to}  ${statSync(join(vendor, to)).size} bytes`);
}
