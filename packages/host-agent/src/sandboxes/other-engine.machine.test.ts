/** A host whose engine is replaced by another version: what runs goes on, and nothing that was frozen before is started by it. */
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { hostAgentProto } from "@wrenn/contract";
import { findProgram } from "@wrenn/system";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { failureOf } from "../testing/failure.ts";
import { TestHostAgent } from "../testing/host-agent-process.ts";
import { newTemplate, TestSandbox } from "../testing/test-sandbox.ts";

const { RecoverySource, SandboxState } = hostAgentProto;

let directory: string;
let qemu: string;
let agent: TestHostAgent;

beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "wrenn-other-engine-"));
  await chmod(directory, 0o755);
  qemu = path.join(directory, "qemu");
  agent = await TestHostAgent.prepare({ WRENN_QEMU_BIN: qemu });
  await install("7.2.22");
  await agent.start();
});

afterAll(async () => {
  await agent.remove();
  await rm(directory, { recursive: true, force: true });
});

/** The machine's own QEMU, which says that it is this version. */
async function install(version: string): Promise<void> {
  const real = (await findProgram("qemu-system-x86_64")) ?? "";
  await writeFile(
    qemu,
    `#!/bin/sh\n[ "$1" = --version ] && exec echo 'QEMU emulator version ${version}'\nexec ${real} "$@"\n`,
  );
  await chmod(qemu, 0o755);
}

describe("once another version has taken its place", () => {
  let running: TestSandbox;
  let paused: TestSandbox;
  let dead: TestSandbox;
  let snapshot: hostAgentProto.Snapshot;

  beforeAll(async () => {
    [running, paused, dead] = [
      await TestSandbox.create(agent),
      await TestSandbox.create(agent),
      await TestSandbox.create(agent),
    ];
    snapshot = await running.keep(newTemplate());
    await dead.pause();
    await dead.resume();
    await dead.run("echo later > /root/written && sync");
    await dead.loseVm();
    await paused.pause();
    await agent.signal("SIGTERM");
    await install("7.2.99");
    await agent.start();
  });

  it("the host says what it is now, and each sandbox and snapshot what it was made by", async () => {
    const host = await agent.client.getHost({});
    expect(host).toMatchObject({ engine: "qemu-tcg", engineVersion: "7.2.99", diskFormat: "qcow2" });
    expect(host.engineReason).toContain("WRENN_ENGINE=tcg demands it");
    expect([host.cpu === "", host.diskReason === "", host.memoryBackends[0]]).toEqual([false, false, "file"]);
    const made = { engine: "qemu-tcg", engineVersion: "7.2.22", cpu: host.cpu, diskFormat: "qcow2" };
    expect(await running.describe()).toMatchObject({ ...made, engineReason: host.engineReason });
    expect(snapshot).toMatchObject(made);
  });

  it("what runs goes on, but is not copied, for the copies would not start; it is not frozen for that", async () => {
    const copy = new TestSandbox(agent);
    expect(await failureOf(running.fork([copy]))).toBe("snapshot_incompatible");
    expect(await running.run("echo goes on")).toBe("goes on\n");
    expect((await running.describe()).generationId).toBe(snapshot.generationId);
    expect(await failureOf(copy.describe())).toBe("sandbox_not_found");
  });

  it("what is paused stays paused, and is not copied", async () => {
    expect(await failureOf(paused.resume())).toBe("snapshot_incompatible");
    expect(await failureOf(paused.fork([new TestSandbox(agent)]))).toBe("snapshot_incompatible");
    expect((await paused.describe()).state).toBe(SandboxState.PAUSED);
  });

  it("a snapshot is not started, and a golden snapshot is made anew", async () => {
    expect(await failureOf(TestSandbox.copyOf(agent, snapshot))).toBe("snapshot_incompatible");
    const fresh = await TestSandbox.create(agent);
    expect(await fresh.describe()).toMatchObject({ engineVersion: "7.2.99" });
    await fresh.destroy();
  });

  it("what has died keeps its disk although its last pause is asked for, and boots from the disk", async () => {
    expect(await failureOf(dead.recover(RecoverySource.LAST_PAUSE))).toBe("snapshot_incompatible");
    expect((await dead.describe()).recoverable).toEqual(["disk", "last_pause"]);
    await dead.recover(RecoverySource.DISK);
    expect(await dead.run("cat /root/written")).toBe("later\n");
    expect(await dead.describe()).toMatchObject({ engineVersion: "7.2.99" });
  });

  it("all of it starts again where the old version is there again", async () => {
    await agent.signal("SIGTERM");
    await install("7.2.22");
    await agent.start();
    await paused.resume();
    expect(await paused.run("echo back")).toBe("back\n");
    const copy = await TestSandbox.copyOf(agent, snapshot);
    expect(await copy.run("echo back")).toBe("back\n");
  });
});
