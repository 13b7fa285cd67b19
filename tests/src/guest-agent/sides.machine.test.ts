/** Which side of a guest a call comes from, with an interface that is not loopback. */
import { execFile, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { guestAgentFile } from "./harness.ts";
import { eventually } from "./process-events.ts";

const run = promisify(execFile);
const guest = `wrenn-guest-${process.pid}`;
const host = `wrenn-host-${process.pid}`;
let agent: ChildProcess;

/** HTTP status of a call made in a network namespace. */
async function status(namespace: string, method: string, url: string): Promise<number> {
  const script = `fetch(process.argv[2], { method: process.argv[1] }).then((response) => console.log(response.status))`;
  const { stdout } = await run("ip", ["netns", "exec", namespace, process.execPath, "-e", script, method, url]);
  return Number(stdout);
}

beforeAll(async () => {
  for (const namespace of [guest, host]) await run("ip", ["netns", "add", namespace]);
  await run("ip", ["-n", guest, "link", "add", "eth0", "type", "veth", "peer", "name", "tap0", "netns", host]);
  for (const [namespace, device, address] of [
    [guest, "eth0", "169.254.0.21/30"],
    [host, "tap0", "169.254.0.22/30"],
  ] as const) {
    await run("ip", ["-n", namespace, "address", "add", address, "dev", device]);
    for (const link of [device, "lo"]) await run("ip", ["-n", namespace, "link", "set", link, "up"]);
  }
  agent = spawn("ip", ["netns", "exec", guest, guestAgentFile, "agent"], { stdio: "inherit" });
  await eventually(async () => (await status(host, "GET", "http://169.254.0.21:49983/health").catch(() => 0)) === 204);
});

afterAll(async () => {
  agent.kill("SIGKILL");
  await once(agent, "exit");
  for (const namespace of [guest, host]) await run("ip", ["netns", "delete", namespace]);
});

test("calls through the guest's interface are the host's", async () => {
  expect(await status(host, "POST", "http://169.254.0.21:49983/init")).toBe(204);
});

test("calls from inside are not, whichever of its addresses they use", async () => {
  // What a guest with root's powers might do to look like its gateway.
  await run("ip", ["-n", guest, "address", "add", "10.0.0.7/32", "dev", "lo"]);
  for (const address of ["127.0.0.1", "169.254.0.21", "10.0.0.7"]) {
    expect([address, await status(guest, "POST", `http://${address}:49983/init`)]).toEqual([address, 403]);
    expect(await status(guest, "GET", `http://${address}:49983/health`)).toBe(204);
  }
});
