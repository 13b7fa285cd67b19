/**
 * After a start of the host agent: tells VMs that still run from what is left of others. An operation that was cut short is undone, or is
 * found to have been complete; what is paused or dead is kept; whatever else there is, is removed.
 */
import { rm } from "node:fs/promises";
import path from "node:path";
import { deadlines, type SandboxId } from "@wrenn/contract";
import { isAlive, type Layout, readBootId, tryAll } from "@wrenn/system";
import type { BaseLogger } from "pino";
import type { HostDisks } from "../disks/host-disks.ts";
import type { Cgroups } from "../engines/cgroups.ts";
import { ConsoleLog } from "../engines/console-log.ts";
import type { VmEnd } from "../engines/engine.ts";
import { adoptVm, findAllEngineProcesses } from "../engines/engines.ts";
import type { SandboxContext, SandboxEntry } from "./context.ts";
import { settleDiskSwitch } from "./disk-switch.ts";
import { killProcess, removeDirectory, removeOverlays, removeRuntimeFiles } from "./free.ts";
import { guestAnswers } from "./guest-client.ts";
import {
  deadJournal,
  type DeadJournal,
  factsOf,
  type Journal,
  type PausedJournal,
  readJournals,
  type RunningJournal,
  writeJournal,
} from "./journal.ts";

export interface Inventory {
  /** Their engines live; whether their guests answer is still to be seen. */
  readonly running: RunningJournal[];
  readonly paused: PausedJournal[];
  readonly dead: DeadJournal[];
  /** Something of them is there that cannot be read. */
  readonly unreadable: readonly SandboxId[];
}

interface InventoryContext {
  readonly layout: Layout;
  readonly cgroups: Cgroups;
  readonly disks: HostDisks;
  readonly log: BaseLogger;
}

/** Must run before the slot pool opens, which removes the slots of everything that is not running. */
export async function takeInventory(context: InventoryContext): Promise<Inventory> {
  const { layout, log } = context;
  const { journals, blank, unreadable, foreign } = await readJournals(layout);
  const running: RunningJournal[] = [];
  const others: Journal[] = [];
  for (const journal of journals) {
    if (journal.state === "running" && (await isAlive(journal.process))) running.push(journal);
    else others.push(journal);
  }
  await removeOrphans(context, running, others);
  const attached = running.map(({ sandboxId, disk }) => ({ sandboxId, format: disk.format }));
  // Before disks of the others are settled, for which nothing may write to them any more.
  await attemptAll(log, [{ name: "detach disks", run: () => context.disks.clear(attached) }]);
  const inventory: Inventory = { running, paused: [], dead: [], unreadable };
  await attemptAll(log, [
    ...others.map((journal) => ({
      name: `clear up after ${journal.sandboxId}`,
      run: async () => {
        const kept = await clearUp(context, journal);
        if (kept?.state === "paused") inventory.paused.push(kept);
        else if (kept?.state === "dead") inventory.dead.push(kept);
      },
    })),
    ...blank.map((id) => ({
      name: `remove ${id}, of which nothing was written down`,
      run: () => removeDirectory(context, id),
    })),
    ...foreign.map((name) => ({
      name: `remove ${name}, which is no sandbox`,
      run: () => rm(path.join(layout.sandboxes, name), { recursive: true, force: true }),
    })),
  ]);
  if (unreadable.length > 0) {
    log.error(
      { sandboxes: unreadable },
      "journals that cannot be read: until these sandboxes are destroyed nothing frozen is removed on this host",
    );
  }
  log.info(
    {
      running: running.length,
      paused: inventory.paused.length,
      dead: inventory.dead.length,
      removed: blank.length + foreign.length,
    },
    "inventory",
  );
  return inventory;
}

/** Ends every engine, and removes every cgroup, that is not of a running sandbox. */
async function removeOrphans(
  context: InventoryContext,
  running: readonly RunningJournal[],
  others: readonly Journal[],
): Promise<void> {
  const { layout, cgroups, log } = context;
  const kept = new Set(
    running.flatMap(({ process, memory }) => [process.pid, ...(memory.pager === null ? [] : [memory.pager.pid])]),
  );
  const found = (await findAllEngineProcesses(layout)).filter(({ pid }) => !kept.has(pid));
  // An engine can overwrite its command line, by which it is found; what a journal names is known without it.
  const orphans = [...found, ...others.flatMap((journal) => ("process" in journal ? (journal.process ?? []) : []))];
  await attemptAll(
    log,
    orphans.map((orphan) => ({ name: `end the orphan ${orphan.pid}`, run: () => killProcess(orphan) })),
  );
  const names = (await cgroups.list()).filter((name) => !running.some(({ sandboxId }) => sandboxId === name));
  await attemptAll(
    log,
    names.map((name) => ({ name: `remove the cgroup ${name}`, run: () => cgroups.remove(name) })),
  );
}

/** Brings what does not run into a state that lasts. Its engine has ended. Null when nothing of it is to be kept. */
async function clearUp(context: InventoryContext, journal: Journal): Promise<PausedJournal | DeadJournal | null> {
  const { layout, log } = context;
  const { sandboxId } = journal;
  const files = layout.sandbox(sandboxId);
  if (journal.state === "creating" || journal.state === "destroying") {
    log.warn({ sandboxId, state: journal.state }, "unwound");
    await removeDirectory(context, sandboxId);
    return null;
  }
  await removeRuntimeFiles(files);
  if (journal.state === "paused") {
    await removeOverlays(files);
    return journal;
  }
  if (journal.state === "resuming") {
    log.warn({ sandboxId }, "a resume was cut short: it is paused again");
    const { generation, pausedAt } = journal;
    const paused: PausedJournal = { ...factsOf(journal), state: "paused", generation, pausedAt, steps: [] };
    await writeJournal(layout, paused);
    await removeOverlays(files);
    return paused;
  }
  const dead = await asDead(layout, journal);
  await writeJournal(layout, dead);
  return settleDiskSwitch(context, dead, files);
}

async function asDead(
  layout: Layout,
  journal: Extract<Journal, { state: "running" | "dead" | "recovering" }>,
): Promise<DeadJournal> {
  const freed = { slot: null, process: null };
  return journal.state === "running" ? deathWhileAway(layout, journal) : { ...journal, ...freed, state: "dead" };
}

async function deathWhileAway(layout: Layout, journal: RunningJournal): Promise<DeadJournal> {
  const sameBoot = journal.process.bootId === (await readBootId());
  const message = sameBoot ? "The virtual machine ended while no host agent was running." : "The host was restarted.";
  const consoleTail = await new ConsoleLog(layout.sandbox(journal.sandboxId).consoleLog).tail();
  const freed = { slot: null, process: null };
  return deadJournal(journal, { code: "vm_died", message, at: new Date(), consoleTail }, freed);
}

/**
 * Takes over a VM that runs: its control socket must answer, and its guest. One that stands still was being frozen when the host agent
 * ended, and goes on: what was not committed has not happened.
 * @returns how it ended, when it turns out that it has
 */
export async function adoptSandbox(
  context: SandboxContext,
  entry: SandboxEntry,
  journal: RunningJournal,
): Promise<VmEnd | null> {
  const { holdings } = entry;
  const slot = context.slots.adopt(journal.slot);
  holdings.slot = slot;
  holdings.process = journal.process;
  holdings.pager = journal.memory.pager;
  holdings.disks = context.disks.of(journal.disk.format);
  holdings.memory = context.admission.adopt(journal.memoryMib);
  try {
    const vm = await adoptVm(journal.process, holdings.files, journal.sandboxId);
    holdings.vm = vm;
    entry.journal = await settleDiskSwitch(context, journal, holdings.files);
    if (await vm.isFrozen()) {
      context.log.warn({ sandboxId: journal.sandboxId }, "found frozen: an operation was cut short, and it goes on");
      await vm.thaw();
    }
    const answers = guestAnswers(slot.address, deadlines.guestAdoption).then((answered) =>
      answered ? null : unresponsive(),
    );
    return await Promise.race([vm.ended, answers]);
  } catch (error) {
    context.log.error({ sandboxId: journal.sandboxId, err: error }, "adoption failed");
    return unresponsive();
  }
}

function unresponsive(): VmEnd {
  const message = "The virtual machine did not answer when the host agent came back, and was ended.";
  return { code: "vm_died", message, at: new Date(), consoleTail: "" };
}

/** Tries everything; a failure is logged and left to a later start, because it must not keep other sandboxes from their agent. */
async function attemptAll(log: BaseLogger, actions: readonly { name: string; run(): Promise<void> }[]): Promise<void> {
  try {
    await tryAll(actions);
  } catch (error) {
    log.error({ err: error }, "could not clear up everything");
  }
}
