// Drives one headless Chromium through the DevTools protocol: node has the WebSocket, nothing is installed.
//
// Standard input: {"chromium", "profile", "url", "width", "height", "scheme": "light"|"dark", "screenshot"?, "steps": [...]}
// where a step is {"run": "expression"}, {"until": "expression"}, {"move": [x, y]}, {"key": "Tab"} or {"open": "url"}.
// Standard output: {"results": [...of the runs], "complaints": [...console errors, exceptions, policy violations]}
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

const task = JSON.parse(readFileSync(0, "utf8"));
const browser = spawn(task.chromium, [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", `--user-data-dir=${task.profile}`, "--remote-debugging-port=0", "about:blank",
], { stdio: ["ignore", "ignore", "pipe"] });

async function endpoint() {
  let text = "";
  for await (const chunk of browser.stderr) {
    text += chunk;
    const found = text.match(/DevTools listening on (ws:\S+)/);
    if (found) return found[1];
  }
  throw new Error(`Chromium did not start: ${text}`);
}

const socket = new WebSocket(await endpoint());
await new Promise((resolve, reject) => { socket.onopen = resolve; socket.onerror = reject; });
browser.stderr.resume();

let last = 0;
const waiting = new Map();
const complaints = [];
let loaded = () => {};
socket.onmessage = ({ data }) => {
  const message = JSON.parse(data);
  if (message.id) {
    const { resolve, reject } = waiting.get(message.id);
    waiting.delete(message.id);
    message.error ? reject(new Error(message.error.message)) : resolve(message.result);
  } else if (message.method === "Page.loadEventFired") {
    loaded();
  } else if (message.method === "Runtime.exceptionThrown") {
    complaints.push(message.params.exceptionDetails.exception?.description ?? message.params.exceptionDetails.text);
  } else if (message.method === "Runtime.consoleAPICalled" && ["error", "warning", "assert"].includes(message.params.type)) {
    complaints.push(message.params.args.map((each) => each.value ?? each.description).join(" "));
  } else if (message.method === "Log.entryAdded" && ["error", "warning"].includes(message.params.entry.level)) {
    complaints.push(`${message.params.entry.text} ${message.params.entry.url ?? ""}`);
  }
};

let session;
function send(method, params = {}, of = session) {
  last += 1;
  const id = last;
  socket.send(JSON.stringify({ id, method, params, sessionId: of }));
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

async function run(expression) {
  const { result, exceptionDetails } = await send("Runtime.evaluate", { expression, returnByValue: true, awaitPromise: true });
  if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
  return result.value;
}

async function open(url) {
  const done = new Promise((resolve) => { loaded = resolve; });
  await send("Page.navigate", { url });
  await done;
}

const results = [];
try {
  const { targetId } = await send("Target.createTarget", { url: "about:blank" }, undefined);
  ({ sessionId: session } = await send("Target.attachToTarget", { targetId, flatten: true }, undefined));
  for (const domain of ["Page", "Runtime", "Log"]) await send(`${domain}.enable`);
  await send("Emulation.setDeviceMetricsOverride", { width: task.width, height: task.height, deviceScaleFactor: 1, mobile: false });
  await send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: task.scheme }] });
  await open(task.url);
  for (const step of task.steps) {
    if (step.run) results.push(await run(step.run));
    if (step.open) await open(step.open);
    if (step.move) await send("Input.dispatchMouseEvent", { type: "mouseMoved", x: step.move[0], y: step.move[1] });
    if (step.key) {
      for (const type of ["keyDown", "keyUp"]) await send("Input.dispatchKeyEvent", { type, key: step.key, code: step.key, windowsVirtualKeyCode: step.key === "Tab" ? 9 : 13 });
    }
    if (step.until) {
      const end = Date.now() + 30_000;
      while (!(await run(step.until))) {
        if (Date.now() > end) throw new Error(`never became true: ${step.until}`);
        await sleep(50);
      }
    }
  }
  if (task.screenshot) {
    const { data } = await send("Page.captureScreenshot", { captureBeyondViewport: true });
    writeFileSync(task.screenshot, Buffer.from(data, "base64"));
  }
} finally {
  const gone = new Promise((resolve) => browser.once("exit", resolve));
  await send("Browser.close", {}, undefined).catch(() => browser.kill());
  await gone;
}
console.log(JSON.stringify({ results, complaints }));
