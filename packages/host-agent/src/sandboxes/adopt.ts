/**
 * After a start of the host agent: tells VMs that still run from what is left of others. Whatever is neither running nor a death to
 * report is removed.
 */
import { rm } from "node:fs/promises";
import path from "node:path";
import { deadlines } from "@wrenn/contract";
import { isAlive, type Layout, readBootId, tryAll } from "@wrenn/system";
import type { BaseLogger } from "pino";
import type { Cgroups } from "../engines/cgroups.ts";
import { ConsoleLog } from "../engines/console-log.ts";
import type { VmEnd } from "../engines/engine.ts";
import { adoptVm, findAllEngineProcesses } from "../engines/engines.ts";
import type { Holdings, SandboxContext } from "./context.ts";
import { killProcess, removeDirectory, removeDisk } from "./free.ts";
import { guestAnswers } from "./guest-client.ts";
import {
  deadJournal,
  type DeadJournal,
  type Journal,
  readJournals,
  type RunningJournal,
  writeJournal,
} from "./journal.ts";

export interface Inventory {
  /** Their engines live; whether their guests answer is still to be seen. */
  readonly running: RunningJournal[];
  readonly dead: DeadJournal[];
}

interface InventoryContext {
  readonly layout: Layout;
  readonly cgroups: Cgroups;
  readonly log: BaseLogger;
}

/** Must run before the slot pool opens, which removes the slots of everything that is not running. */
export async function takeInventory(context: InventoryContext): Promise<Inventory> {
  const { layout, log } = context;
  const { journals, unreadable, foreign } = await readJournals(layout);
  const running: RunningJournal[] = [];
  const gone: Journal[] = [];
  for (const journal of journals) {
    if (journal.state === "running" && (await isAlive(journal.process))) running.push(journal);
    else gone.push(journal);
  }
  await removeOrphans(context, running, gone);
  const inventory: Inventory = { running, dead: [] };
  await attemptAll(log, [
    ...gone.map((journal) => ({
      name: `clear up after ${journal.sandboxId}`,
      run: async () => {
        const dead = await clearUp(context, journal);
        if (dead !== null) inventory.dead.push(dead);
      },
    })),
    ...unreadable.map((id) => ({
      name: `remove ${id}, which has no journal`,
      run: () => removeDirectory(context, id),
    })),
    ...foreign.map((name) => ({
      name: `remove ${name}, which is no sandbox`,
      run: () => rm(path.join(layout.sandboxes, name), { recursive: true, force: true }),
    })),
  ]);
  log.info(
    { running: running.length, dead: inventory.dead.length, removed: unreadable.length + foreign.length },
    "inventory",
  );
  return inventory;
}

/** Ends every engine, and removes every cgroup, that is not of a running sandbox. */
async function removeOrphans(
  context: InventoryContext,
  running: readonly RunningJournal[],
  gone: readonly Journal[],
): Promise<void> {
  const { layout, cgroups, log } = context;
  const kept = new Set(running.map(({ process }) => process.pid));
  const found = (await findAllEngineProcesses(layout)).filter(({ pid }) => !kept.has(pid));
  // An engine can overwrite its command line, by which it is found; what a journal names is known without it.
  const orphans = [...found, ...gone.flatMap(({ process }) => process ?? [])];
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

/** Unwinds a half-made or half-destroyed sandbox; of one that died, what tells why is kept. Its engine has ended. */
async function clearUp(context: InventoryContext, journal: Journal): Promise<DeadJournal | null> {
  const { layout, log } = context;
  if (journal.state === "creating" || journal.state === "destroying") {
    log.warn({ sandboxId: journal.sandboxId, state: journal.state }, "unwound");
    await removeDirectory(context, journal.sandboxId);
    return null;
  }
  const files = layout.sandbox(journal.sandboxId);
  await removeDisk({ files, slot: null, vm: null, process: null, memory: null });
  const dead: DeadJournal =
    journal.state === "dead" ? { ...journal, slot: null, process: null } : await deathWhileAway(layout, journal);
  await writeJournal(layout, dead);
  return dead;
}

async function deathWhileAway(layout: Layout, journal: RunningJournal): Promise<DeadJournal> {
  const sameBoot = journal.process.bootId === (await readBootId());
  const message = sameBoot ? "The virtual machine ended while no host agent was running." : "The host was restarted.";
  const consoleTail = await new ConsoleLog(layout.sandbox(journal.sandboxId).consoleLog).tail();
  const freed = { slot: null, process: null };
  return deadJournal(journal, { code: "vm_died", message, at: new Date(), consoleTail }, freed);
}

/**
 * Takes over a VM that runs: its control socket must answer, and its guest.
 * @returns how it ended, when it turns out that it has
 */
export async function adoptSandbox(
  context: SandboxContext,
  journal: RunningJournal,
  holdings: Holdings,
): Promise<VmEnd | null> {
  const slot = context.slots.adopt(journal.slot);
  holdings.slot = slot;
  holdings.process = journal.process;
  holdings.memory = context.admission.adopt(journal.memoryMib);
  try {
    const vm = await adoptVm(journal.process, holdings.files);
    holdings.vm = vm;
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
