/** Paused sandboxes while everything around them ends: the host agent, a VM, the machine. */
import { rm } from "node:fs/promises";
import { hostAgentProto } from "@wrenn/contract";
import { readJson, run, signalProcess, writeJsonDurably } from "@wrenn/system";
import { afterEach, beforeEach, expect, it } from "vitest";
import { instanceTag } from "../network/slot-pool.ts";
import { failureOf } from "../testing/failure.ts";
import { TestHostAgent } from "../testing/host-agent-process.ts";
import { forget, TestSandbox } from "../testing/test-sandbox.ts";
import { journalSchema } from "./journal.ts";
import { ModelledGuest } from "./testing/modelled-guest.ts";

const { RecoverySource, SandboxState } = hostAgentProto;

let agent: TestHostAgent;
let sandbox: TestSandbox;
let guest: ModelledGuest;

beforeEach(async () => {
  agent = await TestHostAgent.prepare();
  await agent.start();
  sandbox = await TestSandbox.create(agent);
  guest = await ModelledGuest.begin(sandbox.run);
  await guest.remember(sandbox.run, { does: "fill", first: 100, count: 1_000, stride: 3, seed: 5 });
  await guest.write(sandbox.run, "file", 6, 300_000, false);
});

afterEach(async () => {
  await agent.remove();
});

async function isWhole(sandbox: TestSandbox): Promise<void> {
  await guest.rereadDisk(sandbox.run);
  expect(await guest.flaws(sandbox.run)).toEqual([]);
}

it("all resume after the host agent was killed, and after it was stopped", async () => {
  const copy = new TestSandbox(agent);
  await sandbox.fork([copy]);
  const snapshot = await sandbox.keep();
  const paused = [sandbox, copy];
  for (const signal of ["SIGKILL", "SIGTERM"] as const) {
    for (const each of paused) await each.pause();
    await agent.signal(signal);
    await agent.start();
    const { sandboxes } = await agent.client.listSandboxes({});
    expect(sandboxes.map(({ state }) => state)).toEqual([SandboxState.PAUSED, SandboxState.PAUSED]);
    for (const each of paused) {
      await each.resume();
      await isWhole(each);
    }
  }
  await isWhole(await TestSandbox.copyOf(agent, snapshot));
  await forget(agent, snapshot);
});

it("one that died after a resume while no host agent was there is not restored, and says so by a code of its own", async () => {
  await sandbox.pause();
  await sandbox.resume();
  const paused = guest.copy();
  await guest.write(sandbox.run, "later", 7, 10_000, false);
  await sandbox.run("sync");
  const engine = await sandbox.engine();
  await agent.signal("SIGKILL");
  await signalProcess(engine, "SIGKILL");
  await agent.start();
  expect((await sandbox.describe()).state).toBe(SandboxState.DEAD);
  await expect(failureOf(sandbox.resume())).resolves.toBe("sandbox_died");
  await expect(failureOf(sandbox.pause())).resolves.toBe("sandbox_died");
  await expect(failureOf(sandbox.fork([new TestSandbox(agent)]))).resolves.toBe("sandbox_died");
  // Chosen, the newer disk is there, without the memory.
  await sandbox.recover(RecoverySource.DISK);
  expect(await sandbox.run("stat -c %s /root/model/later; ls /run/ballast.orders 2>/dev/null || echo booted")).toBe(
    "10000\nbooted\n",
  );
  await sandbox.loseVm();
  // Chosen, memory and disk are both those of the pause.
  await sandbox.recover(RecoverySource.LAST_PAUSE);
  guest = paused;
  await isWhole(sandbox);
});

it("resumes on a machine that has kept its disk and nothing else", async () => {
  const running = new TestSandbox(agent);
  await sandbox.fork([running]);
  await sandbox.pause();
  const engine = await running.engine();
  await agent.signal("SIGKILL");
  await signalProcess(engine, "SIGKILL");
  await forgetBoot(running);
  await agent.start();
  // What ran has died with the machine, and says of what.
  expect(await running.describe()).toMatchObject({
    state: SandboxState.DEAD,
    death: { message: "The host was restarted." },
  });
  await sandbox.resume();
  await isWhole(sandbox);
});

/** Removes all that does not outlive a boot, and has the journal of what ran name another one. */
async function forgetBoot(running: TestSandbox): Promise<void> {
  const { layout } = agent;
  const tag = instanceTag(layout.root);
  await rm(layout.run, { recursive: true });
  const { stdout: namespaces } = await run("ip", ["netns", "list"]);
  for (const [name] of namespaces.matchAll(new RegExp(`^wrenn-${tag}-\\d+`, "gm")))
    await run("ip", ["netns", "delete", name]);
  const { stdout: tables } = await run("nft", ["list", "tables"]);
  for (const [, family = "", name = ""] of tables.matchAll(new RegExp(`^table (\\w+) (\\S*${tag}\\S*)$`, "gm"))) {
    await run("nft", ["delete", "table", family, name]);
  }
  const { cgroups } = await agent.traces();
  for (const group of cgroups) await run("rmdir", [group]);
  const { journal: file } = layout.sandbox(running.id);
  const journal = journalSchema.parse(await readJson(file));
  if (journal.state !== "running") throw new Error(`a journal that says ${journal.state}`);
  await writeJsonDurably(file, { ...journal, process: { ...journal.process, bootId: crypto.randomUUID() } });
}
