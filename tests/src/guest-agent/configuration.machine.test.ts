import { readFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { refusal, startGuestAgent, user, type GuestAgent } from "./harness.ts";
import { observe, shell } from "./process-events.ts";

let agent: GuestAgent;
beforeAll(async () => {
  agent = await startGuestAgent();
});
afterAll(() => agent.stop());

function init(configuration: unknown, port = agent.port): Promise<Response> {
  return fetch(`http://127.0.0.1:${port}/init`, { method: "POST", body: JSON.stringify(configuration) });
}

function run(script: string, as?: string) {
  return observe(agent.process(as === undefined ? {} : { user: as }).start(shell(script)));
}

describe("/init", () => {
  test("sets variables, which replace the earlier ones and can be read", async () => {
    expect((await init({ envVars: { A: "1", B: "two words" } })).status).toBe(204);
    expect((await run("echo $A $B")).stdout).toBe("1 two words\n");
    expect(await (await agent.fetch("/envs")).json()).toEqual({ A: "1", B: "two words" });
    await init({});
    expect(await (await agent.fetch("/envs")).json()).toEqual({ A: "1", B: "two words" });
    await init({ envVars: { C: "3" } });
    expect(await (await agent.fetch("/envs")).json()).toEqual({ C: "3" });
  });

  test("sets who and where calls without a user and path are for", async () => {
    expect((await init({ defaultUser: "other", defaultWorkdir: "/var" })).status).toBe(204);
    expect((await run("id -un; pwd")).stdout).toBe("other\n/var\n");
    expect((await agent.filesystem().stat({ path: "" })).entry?.path).toBe("/var");
    expect((await agent.filesystem().stat({ path: "." })).entry?.path).toBe("/home/other");
    await init({ defaultUser: user.name, defaultWorkdir: user.home });
  });

  test("gives the guest its name and machine id", async () => {
    const machineId = "0123456789abcdef0123456789abcdef";
    expect((await init({ hostname: "sb-one", machineId })).status).toBe(204);
    expect((await init({ hostname: "sb-two", machineId })).status).toBe(204);
    expect((await run("uname -n; cat /etc/hostname /etc/machine-id")).stdout).toBe(`sb-two\nsb-two\n${machineId}\n`);
    const hosts = await readFile(agent.outside("/etc/hosts"), "utf8");
    expect(hosts.match(/^127\.0\.1\.1.*$/gm)).toEqual(["127.0.1.1\tsb-two"]);
  });

  test("sets name servers, and takes entropy and the time it already is", async () => {
    const configuration = {
      dns: ["1.1.1.1", "2606:4700:4700::1111"],
      entropy: Buffer.alloc(64, 7).toString("base64"),
      timestamp: new Date().toISOString(),
      fieldOfTomorrow: { any: "thing" },
    };
    expect((await init(configuration)).status).toBe(204);
    expect(await readFile(agent.outside("/etc/resolv.conf"), "utf8")).toBe(
      "nameserver 1.1.1.1\nnameserver 2606:4700:4700::1111\n",
    );
  });

  test("confirms a restore; what the request does not name stays as it was, and so does a machine that is no guest", async () => {
    await init({ envVars: { KEPT: "1" }, defaultUser: "other", defaultWorkdir: "/var" });
    const bootId = await readFile("/proc/sys/kernel/random/boot_id", "utf8");
    const response = await init({ restored: true, entropy: Buffer.alloc(32, 7).toString("base64") });
    expect([response.status, await response.json()]).toEqual([200, { reseeded: true, connectionsClosed: 0 }]);
    expect((await run("echo $KEPT; id -un; pwd; cat /proc/sys/kernel/random/boot_id")).stdout).toBe(
      `1\nother\n/var\n${bootId}`,
    );
    await init({ envVars: {}, defaultUser: user.name, defaultWorkdir: user.home });
  });

  test("needs no body", async () => {
    expect((await agent.fetch("/init", { method: "POST" })).status).toBe(204);
  });

  test("says so when the clock cannot be set", async () => {
    const response = await init({ timestamp: "2031-01-01T00:00:00Z" });
    expect([response.status, await response.json()]).toEqual([
      500,
      { code: 500, message: "setting the clock: Operation not permitted (os error 1)" },
    ]);
  });

  test.each([
    ["no JSON", "{", "invalid request body"],
    ["an unknown default user", { defaultUser: "stranger" }, "invalid username: 'stranger'"],
    ["a relative directory", { defaultWorkdir: "x" }, "defaultWorkdir must be an absolute path"],
    ["a time that is none", { timestamp: "now" }, "timestamp 'now' is not RFC 3339"],
    ["a host name that is none", { hostname: "a b" }, "hostname must be"],
    ["a machine id that is none", { machineId: "x" }, "machineId must be"],
    ["entropy that is not base64", { entropy: "?" }, "entropy must be base64"],
    ["a restore without entropy", { restored: true }, "a restored guest needs at least 32 bytes of entropy"],
    ["a restore with little entropy", { restored: true, entropy: "AAAA" }, "a restored guest needs at least 32 bytes"],
    ["a name server that is no address", { dns: ["example.com\nx"] }, "is not an IP address"],
  ])("refuses %s and changes nothing", async (_, configuration, message) => {
    const body =
      typeof configuration === "string" ? configuration : JSON.stringify({ ...configuration, envVars: { X: "1" } });
    const response = await agent.fetch("/init", { method: "POST", body });
    const expected: unknown = { status: 400, code: 400, message: expect.stringContaining(message) };
    expect(await refusal(response)).toEqual(expected);
    expect(await (await agent.fetch("/envs")).json()).not.toHaveProperty("X");
  });

  test("is refused from inside the guest, as what only its host may ask is; the rest is not", async () => {
    const inside = (path: string, method = "GET") => fetch(`http://127.0.0.1:${agent.guestPort}${path}`, { method });
    const refused = [await inside("/init", "POST"), await inside("/sync", "POST"), await inside("/tunnel?port=1")];
    for (const response of refused) {
      expect(response.status).toBe(403);
      expect(await response.json()).toMatchObject({ code: 403 });
    }
    expect((await inside("/health")).status).toBe(204);
    expect((await inside("/envs")).status).toBe(200);
  });
});

test("/sync answers when the disk has all that was written; it has no other methods", async () => {
  expect((await agent.fetch("/sync", { method: "POST" })).status).toBe(204);
  expect(await refusal(await agent.fetch("/sync"))).toMatchObject({ status: 405 });
});

test("metrics are those of the machine", async () => {
  const metrics = z.record(z.string(), z.number()).parse(await (await agent.fetch("/metrics")).json());
  expect(Object.keys(metrics).sort()).toEqual([
    "cpu_count",
    "cpu_used_pct",
    "disk_total",
    "disk_used",
    "mem_cache",
    "mem_total",
    "mem_total_mib",
    "mem_used",
    "mem_used_mib",
    "ts",
  ]);
  const metric = (name: string) => metrics[name] ?? Number.NaN;
  const meminfo = await readFile("/proc/meminfo", "utf8");
  expect(metric("mem_total")).toBe(Number(/MemTotal:\s+(\d+)/.exec(meminfo)?.[1]) * 1024);
  expect(metric("mem_total_mib")).toBe(Math.floor(metric("mem_total") / 1024 / 1024));
  expect(metric("mem_used")).toBeGreaterThan(0);
  expect(metric("mem_used")).toBeLessThan(metric("mem_total"));
  expect(metric("disk_used")).toBeLessThan(metric("disk_total"));
  expect(metric("cpu_used_pct")).toBeGreaterThanOrEqual(0);
  expect(metric("cpu_used_pct")).toBeLessThanOrEqual(100);
  expect(Math.abs(metric("ts") - Date.now() / 1000)).toBeLessThan(5);
});
