/** The first command on both sides, and many of it at once: until the last has answered. */
import type { SandboxId } from "@wrenn/contract";
import { executeAt } from "@wrenn/host-agent/testing";
import type { BareNetwork } from "./bare-network.ts";
import { BareGuest, type FrozenGuest } from "./bare-restore.ts";
import type { FrozenHost } from "./frozen-host.ts";

/** For a shell, which both sides run. */
export const command = "echo ready";

export async function firstOutput(host: FrozenHost, id: SandboxId): Promise<void> {
  assertReady(await host.run(id, command));
}

/**
 * Restores a bare guest in each network at once, and runs the first command in each.
 * @returns milliseconds until the last has answered
 */
export async function timeBareRestores(
  { frozen, scratch }: { readonly frozen: FrozenGuest; readonly scratch: string },
  networks: readonly BareNetwork[],
): Promise<number> {
  const guests: BareGuest[] = [];
  const start = performance.now();
  const one = async (network: BareNetwork): Promise<void> => {
    const guest = await BareGuest.restore(frozen, network, scratch);
    guests.push(guest);
    assertReady(await executeAt(guest.address, command));
  };
  try {
    await Promise.all(networks.map(one));
    return performance.now() - start;
  } finally {
    for (const guest of guests) await guest.stop();
  }
}

/** The same with Wrenn's creates. */
export async function timeCreates(host: FrozenHost, count: number): Promise<number> {
  const ids: SandboxId[] = [];
  const start = performance.now();
  const one = async (): Promise<void> => {
    const id = await host.create();
    ids.push(id);
    await firstOutput(host, id);
  };
  try {
    await Promise.all(Array.from({ length: count }, one));
    return performance.now() - start;
  } finally {
    for (const id of ids) await host.destroy(id);
  }
}

function assertReady(output: string): void {
  if (output !== "ready\n") throw new Error(`the first command printed ${JSON.stringify(output)}`);
}
