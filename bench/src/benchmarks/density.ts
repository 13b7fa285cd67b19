/**
 * What fifty idle sandboxes from one golden snapshot take of the host, against fifty bare restores of it: by what their engines hold for
 * themselves, and by what the host then has less.
 */
import { readFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import type { SandboxId } from "@wrenn/contract";
import { executeAt } from "@wrenn/host-agent/testing";
import type { BareNetwork } from "../bare-network.ts";
import { BareGuest } from "../bare-restore.ts";
import { firstOutput } from "../first-output.ts";
import { besideBare, type FrozenHost } from "../frozen-host.ts";
import { type Measurement, progressLine } from "../report.ts";

const count = 50;
/** Brought up at once: more only wait for each other. */
const atOnce = 5;
/** What guests do after their first command has ended by then. */
const settleMs = 5_000;
/** Beyond a bare engine's. */
const maxMoreMib = 8;

/** MiB of each, on average. */
interface Taken {
  /** Pages that no other process has. */
  readonly own: number;
  /** The same, and its part of those that several have. */
  readonly proportional: number;
  readonly available: number;
}

export async function measureDensity(): Promise<Measurement[]> {
  // Fifty of 512 MiB are promised 44 GiB with what their engines may need; few hosts have it.
  const environment = { WRENN_MEMORY_OVERCOMMIT: "4" };
  const { bare, ours } = await besideBare({ slots: atOnce, networks: count, environment }, async (host, networks) => ({
    bare: await bareTaken(host, networks),
    ours: await wrennTaken(host),
  }));
  const row = (name: string, key: keyof Taken): Measurement => ({
    name: `${count} idle sandboxes: ${name}, each`,
    unit: "MiB",
    ours: [ours[key]],
    bare: [bare[key]],
    target: null,
    failures: 0,
  });
  return [
    row("private memory", "own"),
    row("private memory and its part of what is shared", "proportional"),
    row("available memory that the host has less", "available"),
    {
      name: `${count} idle sandboxes: private memory beyond a bare engine's, each`,
      unit: "MiB",
      ours: [ours.own - bare.own],
      target: maxMoreMib,
      failures: 0,
    },
  ];
}

async function bareTaken(host: FrozenHost, networks: readonly BareNetwork[]): Promise<Taken> {
  const guests: BareGuest[] = [];
  const before = await availableMib();
  try {
    await inBatches("bare", networks, async (network) => {
      const guest = await BareGuest.restore(host.frozen, network, host.scratch);
      guests.push(guest);
      await executeAt(guest.address, "echo ready");
    });
    return await taken(
      guests.map(({ pid }) => pid),
      before,
    );
  } finally {
    await Promise.all(guests.map((guest) => guest.stop()));
  }
}

async function wrennTaken(host: FrozenHost): Promise<Taken> {
  const ids: SandboxId[] = [];
  const before = await availableMib();
  try {
    await inBatches("Wrenn", Array.from({ length: count }), async () => {
      const id = await host.create();
      ids.push(id);
      await firstOutput(host, id);
    });
    return await taken(await Promise.all(ids.map((id) => host.engineOf(id))), before);
  } finally {
    for (const id of ids) await host.destroy(id);
  }
}

async function inBatches<Item>(
  side: string,
  items: readonly Item[],
  start: (item: Item) => Promise<void>,
): Promise<void> {
  for (let begin = 0; begin < items.length; begin += atOnce) {
    const batch = items.slice(begin, begin + atOnce);
    await Promise.all(batch.map(start));
    console.error(progressLine(`density, ${side}`, begin + batch.length, items.length, []));
  }
}

async function taken(pids: readonly number[], beforeMib: number): Promise<Taken> {
  await delay(settleMs);
  const mapped = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/smaps_rollup`, "utf8")));
  const mean = (...names: string[]): number =>
    mapped.reduce((sum, text) => sum + names.reduce((part, name) => part + kib(text, name), 0), 0) /
    1_024 /
    pids.length;
  return {
    own: mean("Private_Clean", "Private_Dirty"),
    proportional: mean("Pss"),
    available: (beforeMib - (await availableMib())) / pids.length,
  };
}

async function availableMib(): Promise<number> {
  return kib(await readFile("/proc/meminfo", "utf8"), "MemAvailable") / 1_024;
}

function kib(text: string, name: string): number {
  const value = new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(text)?.[1];
  if (value === undefined) throw new Error(`there is no ${name}`);
  return Number(value);
}
