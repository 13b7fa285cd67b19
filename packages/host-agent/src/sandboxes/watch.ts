/** Notices that a running VM has ended, or can go on no more because whoever serves its memory has. */
import { setTimeout as delay } from "node:timers/promises";
import { isAlive, type ProcessIdentity } from "@wrenn/system";
import type { VmEnd } from "../engines/engine.ts";
import { pagerOf } from "../memory/pager.ts";
import type { Holdings } from "./context.ts";

/** How often a pager is looked at: a guest whose page nobody brings stands still until this is noticed. */
const pagerIntervalMs = 1_000;

/** Resolves when the VM has ended. Never rejects, and never resolves when the VM is let go of or ended on purpose. */
export async function watchVm(holdings: Holdings): Promise<VmEnd> {
  const { vm, pager, files } = holdings;
  if (vm === null) return new Promise(() => undefined);
  if (pager === null) return vm.ended;
  const served = pagerOf(pager, files);
  const lost = async (): Promise<VmEnd> => {
    while (holdings.vm === vm && (await mayBeAlive(pager))) await delay(pagerIntervalMs, undefined, { ref: false });
    // One that has brought every page is not needed any more.
    if (holdings.vm !== vm || (await served.status())?.state === "complete") return vm.ended;
    const message = (await served.status())?.message ?? "The process that serves the sandbox's memory has ended.";
    return { code: "memory_unreadable", message, at: new Date(), consoleTail: await vm.consoleTail() };
  };
  const end = await Promise.race([vm.ended, lost()]);
  // The pager ends a VM that it cannot serve: it knows why.
  const status = await served.status();
  return status?.state === "failed"
    ? { ...end, code: "memory_unreadable", message: status.message ?? end.message }
    : end;
}

/** What cannot be looked at, as without a free file descriptor, is no sign of an end. */
async function mayBeAlive(pager: ProcessIdentity): Promise<boolean> {
  try {
    return await isAlive(pager);
  } catch {
    return true;
  }
}
