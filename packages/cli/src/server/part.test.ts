import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { WrennError } from "@wrenn/contract";
import { isAlive, type Layout, pollUntil, wrennLayout } from "@wrenn/system";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Part, type PartDefinition, readPartRecord } from "./part.ts";

let layout: Layout;
const parts: Part[] = [];

beforeEach(async () => {
  layout = wrennLayout(await mkdtemp(path.join(tmpdir(), "wrenn-part-")));
  await mkdir(layout.run);
  await mkdir(layout.logs);
});

afterEach(async () => {
  for (const part of parts.splice(0)) await part.stop();
  await rm(layout.root, { recursive: true });
});

/** A part that is a shell script, ready as soon as it has written so. */
function partOf(script: string, changes: Partial<PartDefinition> = {}): Part {
  const definition: PartDefinition = {
    name: "host-agent",
    program: "sh",
    args: ["-c", script],
    env: { PATH: process.env["PATH"] ?? "" },
    version: "1",
    stopSignal: "SIGTERM",
    isReady: async () => (await readFile(layout.log("host-agent"), "utf8")).includes("ready"),
    ...changes,
  };
  const part = new Part(layout, definition, () => undefined);
  parts.push(part);
  return part;
}

const serve = "echo ready; exec sleep 1000";

async function pid(): Promise<number> {
  return (await readPartRecord(layout, "host-agent"))?.identity.pid ?? 0;
}

describe("a part of the server", () => {
  it("is adopted by the next server when it is what that would start", async () => {
    expect(await partOf(serve).ensureStarted()).toBe("started");
    const first = await pid();
    expect(await partOf(serve).ensureStarted()).toBe("adopted");
    expect(await pid()).toBe(first);
  });

  it.each([
    ["version", { version: "2" }],
    ["environment", { env: { PATH: "/usr/bin:/bin", OTHER: "1" } }],
  ])("of another %s is replaced", async (_what, change) => {
    await partOf(serve).ensureStarted();
    const record = await readPartRecord(layout, "host-agent");
    expect(await partOf(serve, change).ensureStarted()).toBe("started");
    expect(await pid()).not.toBe(record?.identity.pid);
    expect(record !== null && (await isAlive(record.identity))).toBe(false);
  });

  it("that dies is started again, until the server stops", async () => {
    const part = partOf(serve);
    await part.ensureStarted();
    const first = await pid();
    const stop = new AbortController();
    const alive = part.keepAlive(stop.signal);
    process.kill(first, "SIGKILL");
    const second = await pollUntil(async () => ((await pid()) === first ? null : pid()), {
      timeoutMs: 5_000,
      intervalMs: 20,
    });
    expect(second).not.toBeNull();
    stop.abort();
    await alive;
    await part.stop();
    expect(await readPartRecord(layout, "host-agent")).toBeNull();
  });

  it("that keeps dying is started again after growing pauses", async () => {
    const part = partOf("echo ready; sleep 0.1");
    await part.ensureStarted();
    const stop = new AbortController();
    const alive = part.keepAlive(stop.signal);
    await delay(4_000);
    stop.abort();
    await alive;
    const starts = (await readFile(layout.log("host-agent"), "utf8")).match(/ready/g)?.length ?? 0;
    // Without pauses it would be about ten.
    expect(starts).toBeGreaterThanOrEqual(3);
    expect(starts).toBeLessThanOrEqual(6);
  });

  it("that names its error in its last words fails with that error, at once", async () => {
    const part = partOf("echo attempt; echo 'engine_missing: There is no QEMU.'; exit 1", {
      isReady: () => Promise.resolve(false),
    });
    await expect(part.ensureStarted()).rejects.toMatchObject({
      code: "engine_missing",
      message: "host-agent: There is no QEMU.",
    });
    expect((await readFile(layout.log("host-agent"), "utf8")).match(/attempt/g)).toHaveLength(1);
  });

  it("that ends without a word is tried a few times, and quoted", async () => {
    const part = partOf("echo attempt; exit 4", { isReady: () => Promise.resolve(false) });
    await expect(part.ensureStarted()).rejects.toThrow(/host-agent ended with 4\..*\nattempt$/s);
    expect((await readFile(layout.log("host-agent"), "utf8")).match(/attempt/g)).toHaveLength(4);
  });

  it("is not waited for once the server is to stop, and does not stay behind", async () => {
    const stop = new AbortController();
    const part = partOf("exec sleep 1000", { isReady: () => Promise.resolve(false) });
    const starting = part.ensureStarted(stop.signal);
    const started = await pollUntil(() => readPartRecord(layout, "host-agent"), { timeoutMs: 5_000 });
    stop.abort();
    await expect(starting).rejects.toMatchObject({ name: "AbortError" });
    expect(started !== null && (await isAlive(started.identity))).toBe(false);
  });

  it("may explain its exit code", async () => {
    const part = partOf("exit 3", {
      isReady: () => Promise.resolve(false),
      explainExit: (code) => (code === 3 ? new WrennError("port_taken") : null),
    });
    await expect(part.ensureStarted()).rejects.toMatchObject({ code: "port_taken" });
  });
});
