/** Waiting for a guest that boots: how long, how often, and what ends the wait early. */
import { deadlines, WrennError } from "@wrenn/contract";
import { withSignals, withTimeLimit } from "@wrenn/system";
import type { VirtualMachine, VmEnd } from "../engines/engine.ts";
import { waitForGuest } from "./guest-client.ts";

/** An emulated boot hangs once in many, and a second attempt succeeds. */
const bootAttempts = 2;

/** Boots, and once more if the guest did not answer in time. Every other failure is final. */
export async function bootWithRetry(signal: AbortSignal, boot: (attempt: number) => Promise<void>): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await boot(attempt);
      return;
    } catch (error) {
      signal.throwIfAborted();
      const timedOut = error instanceof WrennError && error.code === "guest_boot_timeout";
      if (!timedOut || attempt === bootAttempts) throw error;
    }
  }
}

/**
 * Resolves when the guest's agent answers.
 * @throws WrennError `guest_boot_timeout`, or of the VM's end
 */
export async function awaitBoot(vm: VirtualMachine, address: string, signal: AbortSignal): Promise<void> {
  const late = new WrennError("guest_boot_timeout", {
    message: `The guest did not answer within ${deadlines.guestBoot / 1_000} s of its start.`,
  });
  const wait = (alive: AbortSignal): Promise<void> => waitForGuest(address, alive);
  try {
    await withTimeLimit(
      deadlines.guestBoot,
      () => late,
      [signal],
      (limited) => whileAlive(vm, limited, wait),
    );
  } catch (error) {
    if (error !== late) throw error;
    const details = { console_tail: await vm.consoleTail() };
    throw new WrennError("guest_boot_timeout", { message: late.message, details });
  }
}

/**
 * Does work that needs a living guest, and ends it at once when the VM ends.
 * @throws WrennError of the VM's end
 */
export async function whileAlive(
  vm: VirtualMachine,
  signal: AbortSignal,
  work: (alive: AbortSignal) => Promise<void>,
): Promise<void> {
  const ended = new AbortController();
  const watch = async (): Promise<void> => {
    ended.abort(deathError(await vm.ended));
  };
  void watch();
  await withSignals([signal, ended.signal], async (alive) => {
    try {
      await work(alive);
    } catch (error) {
      alive.throwIfAborted();
      throw error;
    }
  });
}

function deathError(end: VmEnd): WrennError {
  return new WrennError(end.code, { message: end.message, details: { console_tail: end.consoleTail } });
}
