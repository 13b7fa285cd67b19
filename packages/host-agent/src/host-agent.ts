/** Puts a host agent together: takes over what an earlier one left, then listens. */
import { realpath } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { deadlines, describeError } from "@wrenn/contract";
import { tryAll, wrennLayout } from "@wrenn/system";
import type { BaseLogger } from "pino";
import type { HostAgentConfig } from "./config.ts";
import { prepareDirectories } from "./directories.ts";
import { findBootFiles } from "./disks/boot-files.ts";
import { chooseDisks } from "./disks/choice.ts";
import { HostDisks } from "./disks/host-disks.ts";
import { Cgroups } from "./engines/cgroups.ts";
import { Engines } from "./engines/engines.ts";
import { readHostFacts } from "./host.ts";
import { lockInstance } from "./instance-lock.ts";
import { GarbageCollector } from "./memory/collect.ts";
import { servesPages } from "./memory/serves-pages.ts";
import { defaultSlotCidr, instanceTag, SlotPool } from "./network/slot-pool.ts";
import { listen } from "./rpc/server.ts";
import type { RunStep } from "./run-step.ts";
import { Admission } from "./sandboxes/admission.ts";
import { takeInventory } from "./sandboxes/adopt.ts";
import type { SandboxContext } from "./sandboxes/context.ts";
import { openFrozenStates } from "./sandboxes/frozen-states.ts";
import { Garbage } from "./sandboxes/garbage.ts";
import { Sandboxes } from "./sandboxes/sandboxes.ts";
import { Snapshots } from "./sandboxes/snapshots.ts";
import { Tunnels } from "./tunnel/tunnel.ts";

export interface HostAgent {
  readonly socketPath: string;
  /** Stops listening, lets creations finish for a while, and leaves running VMs to the next host agent. */
  close(): Promise<void>;
}

/** @throws WrennError `setup_failed` when another host agent serves this WRENN_DIR, or the machine cannot be used */
export async function startHostAgent(config: HostAgentConfig, log: BaseLogger, runStep: RunStep): Promise<HostAgent> {
  await prepareDirectories(wrennLayout(config.wrennDir));
  // Engines are found again by the paths on their command lines, so a directory must have one name only.
  const layout = wrennLayout(await realpath(config.wrennDir));
  const lock = await lockInstance(layout.root);
  // Tells this directory's namespaces, rules and cgroups from another's on the same machine.
  const instance = instanceTag(layout.root);
  const cgroups = await Cgroups.open(instance === "" ? "default" : instance, log);
  if (cgroups.missing.length > 0) log.warn({ controllers: cgroups.missing }, "engines run without these limits");

  const chosenDisks = await chooseDisks(config.disks);
  log.info({ format: chosenDisks.format, reason: chosenDisks.reason }, "disks");
  const disks = new HostDisks(layout, chosenDisks);
  const inventory = await takeInventory({ layout, cgroups, disks, log });
  const slots = await SlotPool.open(
    {
      cidr: config.slotCidr ?? defaultSlotCidr(instance),
      instance,
      poolSize: config.slotPoolSize,
      onBackgroundFailure: (error) => {
        log.error({ err: error }, "network slots");
      },
    },
    inventory.running.map(({ slot }) => slot),
  );
  const engines = new Engines({
    layout,
    cgroups,
    choice: config.engine,
    programs: config.programs,
    disks,
    bootFiles: () => findBootFiles(layout),
  });
  const suspectGarbage = (): void => {
    garbage.suspect();
  };
  const frozen = await openFrozenStates(layout, {
    disks,
    goldenBytes: config.goldenBytes,
    suspectGarbage,
    runStep,
    log,
  });
  const garbage = new Garbage({
    layout,
    golden: frozen.golden,
    collector: new GarbageCollector(frozen.generations, log, runStep),
    journals: () => sandboxes.roots(),
    log,
  });
  const context: SandboxContext = {
    layout,
    engines,
    disks,
    slots,
    cgroups,
    admission: new Admission(layout, config.memoryOvercommit),
    ...frozen,
    memoryChoice: config.memory,
    servesPages: await servesPages(),
    suspectGarbage,
    dns: config.dns,
    runStep,
    log,
  };
  const [sandboxes] = await Promise.all([Sandboxes.open(context, inventory), chooseEngine(engines, log)]);
  const snapshots = new Snapshots(context, sandboxes);
  suspectGarbage();
  sandboxes.foldPaused();
  await snapshots.foldAll();
  if (config.warmStart) await warm(sandboxes, log);

  const hostFacts = (): ReturnType<typeof readHostFacts> =>
    readHostFacts({ layout, engines, disks, slots, memory: context });
  const server = await listen(layout.hostAgentSocket, { sandboxes, snapshots, layout, hostFacts, log });
  const tunnels = new Tunnels(sandboxes, log);
  server.on("connect", tunnels.accept);
  log.info({ socket: layout.hostAgentSocket }, "listening");
  return {
    socketPath: layout.hostAgentSocket,
    close: async () => {
      log.info({ openTunnels: tunnels.open }, "closing");
      server.close();
      await sandboxes.close(deadlines.hostAgentDrain);
      await garbage.close();
      await frozen.folds.close();
      server.closeAllConnections();
      await tryAll([
        { name: "close the pool of slots", run: () => slots.close() },
        { name: "remove the cgroups", run: () => cgroups.close() },
      ]);
      lock.close();
    },
  };
}

/** The first sandbox would have to wait for what is made here. Not being able to make it is for that sandbox to tell. */
async function warm(sandboxes: Sandboxes, log: BaseLogger): Promise<void> {
  const made = sandboxes.warm().catch((error: unknown) => {
    log.error({ reason: describeError(error) }, "could not make the golden snapshot of default sandboxes");
  });
  await Promise.race([made, delay(deadlines.warmStart, undefined, { ref: false })]);
}

/** A host agent without an engine still serves: it adopts, destroys, and says what is missing. */
async function chooseEngine(engines: Engines, log: BaseLogger): Promise<void> {
  try {
    const { kind, version, reason } = await engines.current();
    log.info({ engine: kind, version, reason }, "engine");
  } catch (error) {
    log.error({ reason: describeError(error) }, "no engine");
  }
}
