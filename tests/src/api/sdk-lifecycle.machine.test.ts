/** Pausing, copying, snapshots and recovery through the SDK: the real server, a real guest agent, a simulated host. */
import { Sandbox, type SandboxInfo, type SnapshotInfo } from "@wrenn/sdk";
import { eventually } from "@wrenn/control-plane/testing";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { useSdk } from "../harness/sdk.ts";

const sdk = useSdk();
let box: Sandbox;

beforeEach(async () => {
  box = await Sandbox.create({ ...sdk().options, metadata: { test: "lifecycle" } });
});
afterEach(async () => {
  for await (const { id } of Sandbox.list({ ...sdk().options, metadata: { test: "lifecycle" } })) {
    await Sandbox.destroy(id, sdk().options);
  }
  for await (const { name } of Sandbox.listSnapshots(sdk().options)) await Sandbox.deleteSnapshot(name, sdk().options);
});

const uuid = ({ id }: { id: string }) => id.slice("sb-".length);

async function snapshots(): Promise<SnapshotInfo[]> {
  const all = [];
  for await (const info of Sandbox.listSnapshots(sdk().options)) all.push(info);
  return all;
}

/** Begins and never ends. */
function unfinished(): ReadableStream<Uint8Array> {
  return new ReadableStream({ start: (controller) => controller.enqueue(new Uint8Array(65_536)) });
}

async function readAll(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<void> {
  while (!(await reader.read()).done);
}

describe("pausing", () => {
  test("shows since when, and is undone by resuming; both can be said twice", async () => {
    const info = await box.pause();
    expect(info).toMatchObject({ status: "paused", memoryBackend: null, expiresAt: null });
    expect(info.pausedAt).toBeInstanceOf(Date);
    expect((await box.pause()).pausedAt).toEqual(info.pausedAt);
    const again = await Sandbox.resume(box.id, sdk().options);
    expect(again.info).toMatchObject({ id: box.id, status: "running", pausedAt: null });
    expect((await again.resume()).status).toBe("running");
    expect((await box.commands.run("echo here")).stdout).toBe("here\n");
  });

  test("refuses what would go into a paused sandbox, with what to do", async () => {
    await Sandbox.pause(box.id, sdk().options);
    const expected = {
      name: "ConflictError",
      code: "sandbox_paused",
      suggestion: expect.stringContaining("Resume it"),
    };
    await expect(box.commands.run("true")).rejects.toMatchObject(expected);
    await expect(box.files.read("/etc/hosts")).rejects.toMatchObject(expected);
    await expect(box.fetch(8080, "/")).rejects.toMatchObject(expected);
    await expect(box.metrics()).rejects.toMatchObject(expected);
  });

  test("ends all that is open with sandbox_paused, and no command", async () => {
    const command = await box.commands.start("sleep 600", { tag: "kept" });
    const running = box.commands.run(["cat"], { stdin: new ReadableStream() });
    const terminal = await box.pty.create({ cols: 80, rows: 24, cmd: "cat" });
    const watch = await box.files.watch("/tmp", () => undefined);
    await eventually(async () => expect(await box.commands.list()).toHaveLength(3));
    await box.commands.run("truncate -s 64M large");
    const download = (await box.files.readStream("large")).getReader();
    await download.read();
    const upload = box.files.write("unfinished", unfinished());
    const ends = [command.wait(), running, terminal.wait(), watch.closed, upload].map((end) =>
      expect(end).rejects.toMatchObject({ code: "sandbox_paused" }),
    );
    await box.pause();
    await Promise.all(ends);
    // Far more than the buffers on its way hold.
    await expect(readAll(download)).rejects.toMatchObject({ code: "sandbox_paused" });
    await box.resume();
    expect(await box.commands.list()).toHaveLength(3);
    const joined = await box.commands.connect("kept");
    await joined.kill();
    expect((await joined.wait()).exitCode).toBe(137);
  });

  test("that takes its time is waited for, and leaves a command that is followed alone when it fails", async () => {
    const { agent } = sdk().server;
    let fail = (): void => undefined;
    agent.beforePause = () => new Promise((_resolve, reject) => (fail = () => reject(new Error("no room"))));
    const command = await box.commands.start("read line; exit 5", { stdin: true });
    const pausing = box.pause();
    await eventually(async () => expect((await box.refresh()).status).toBe("pausing"));
    await expect(box.fork()).rejects.toMatchObject({ name: "ConflictError", code: "sandbox_busy" });
    agent.beforePause = () => Promise.resolve();
    fail();
    await expect(pausing).rejects.toMatchObject({ name: "WrennError" });
    await eventually(async () => expect((await box.refresh()).status).toBe("running"));
    await command.sendStdin("line\n");
    expect((await command.wait()).exitCode).toBe(5);
  });

  test("goes on at the server when its caller stops waiting", async () => {
    const { agent } = sdk().server;
    let release = (): void => undefined;
    agent.beforePause = () => new Promise((resolve) => (release = resolve));
    const stop = new AbortController();
    const pausing = box.pause({ signal: stop.signal });
    await eventually(async () => expect((await box.refresh()).status).toBe("pausing"));
    stop.abort(new Error("enough"));
    await expect(pausing).rejects.toThrow("enough");
    agent.beforePause = () => Promise.resolve();
    release();
    await eventually(async () => expect((await box.refresh()).status).toBe("paused"));
  });
});

describe("a timeout", () => {
  test("begins anew when it is set", async () => {
    const { timeoutMs, expiresAt } = await box.setTimeout(3_600_000);
    expect(timeoutMs).toBe(3_600_000);
    expect(Math.abs((expiresAt?.getTime() ?? 0) - Date.now() - 3_600_000)).toBeLessThan(30_000);
    expect(await box.setTimeout(null)).toMatchObject({ timeoutMs: null, expiresAt: null });
    await expect(box.setTimeout(0)).rejects.toMatchObject({ name: "InvalidRequestError" });
  });
});

describe("a fork", () => {
  test("makes sandboxes of their own, as asked for, or as the first one is", async () => {
    const copies = await box.fork({ count: 2 });
    expect(new Set([box, ...copies].map(({ id }) => id)).size).toBe(3);
    for (const { info } of copies) expect(info).toMatchObject({ status: "running", metadata: { test: "lifecycle" } });
    await expect(box.fork({ count: 51 })).rejects.toMatchObject({ name: "InvalidRequestError" });
    await box.pause();
    const [other] = await box.fork({ metadata: { test: "lifecycle", n: "1" }, timeoutMs: 60_000 });
    expect(other?.info).toMatchObject({ status: "running", timeoutMs: 60_000, metadata: { n: "1" } });
    expect((await other?.commands.run("echo copy"))?.stdout).toBe("copy\n");
    expect((await box.refresh()).status).toBe("paused");
  });
});

describe("snapshots", () => {
  test("are taken, listed, started from with their own sizes, replaced and deleted", async () => {
    const { options } = sdk();
    const taken = await box.createSnapshot({ name: "base" });
    expect(taken).toMatchObject({ name: "base", sandboxId: box.id, vcpus: 1, memoryMib: 512 });
    expect(await Sandbox.getSnapshot("base", options)).toEqual(taken);
    const other = await Sandbox.create({ ...options, template: "base", metadata: { test: "lifecycle" } });
    expect(other.info).toMatchObject({ status: "running", template: "base", memoryMib: 512 });
    await expect(Sandbox.create({ ...options, template: "base", memoryMib: 1_024 })).rejects.toMatchObject({
      name: "InvalidRequestError",
    });
    await expect(box.createSnapshot({ name: "base" })).rejects.toMatchObject({ code: "snapshot_name_taken" });
    await expect(box.createSnapshot({ name: "../base" })).rejects.toMatchObject({ code: "invalid_name" });
    const replaced = await box.createSnapshot({ name: "base", overwrite: true });
    expect(replaced.createdAt.getTime()).toBeGreaterThanOrEqual(taken.createdAt.getTime());
    const unnamed = await other.createSnapshot();
    expect((await snapshots()).map(({ name }) => name)).toEqual([unnamed.name, "base"]);
    await Sandbox.deleteSnapshot("base", options);
    await expect(Sandbox.deleteSnapshot("base", options)).rejects.toMatchObject({ name: "SnapshotNotFoundError" });
    await expect(Sandbox.getSnapshot("base", options)).rejects.toMatchObject({ name: "SnapshotNotFoundError" });
    expect((await other.refresh()).status).toBe("running");
  });
});

describe("a sandbox that has died", () => {
  async function dead(): Promise<SandboxInfo> {
    sdk().server.agent.kill(uuid(box), "guest_panicked", "It panicked.", ["disk", "last_pause"]);
    await eventually(async () => expect((await box.refresh()).status).toBe("error"));
    return box.info;
  }

  test("says what it can be started from again, and is", async () => {
    expect(await dead()).toMatchObject({
      statusReason: { code: "guest_panicked" },
      recoverable: ["disk", "last_pause"],
      memoryBackend: null,
    });
    await expect(box.pause()).rejects.toMatchObject({ name: "GuestError", code: "sandbox_died" });
    expect(await box.recover({ from: "last_pause" })).toMatchObject({ status: "running", recoverable: [] });
    await dead();
    const again = await Sandbox.recover(box.id, { ...sdk().options, from: "disk" });
    expect((await again.commands.run("echo back")).stdout).toBe("back\n");
  });
});
