/** Notices that a running VM has ended, or can go on no more because whoever serves its memory has, or because its disk has failed. */
import { setTimeout as delay } from "node:timers/promises";
import { errorRegistry } from "@wrenn/contract";
import { isAlive, type ProcessIdentity } from "@wrenn/system";
import type { VirtualMachine, VmEnd } from "../engines/engine.ts";
import { pagerOf } from "../memory/pager.ts";
import type { Holdings } from "./context.ts";

/** How often a pager is looked at: a guest whose page nobody brings stands still until this is noticed. And a disk. */
const lookIntervalMs = 1_000;

type WatchedVm = Pick<VirtualMachine, "ended" | "consoleTail">;
type Watched = Pick<Holdings, "pager" | "files" | "disks"> & { readonly vm: WatchedVm | null };

/** Resolves when the VM has ended. Never rejects, and never resolves when the VM is let go of or ended on purpose. */
export async function watchVm(holdings: Watched): Promise<VmEnd> {
  const { vm } = holdings;
  if (vm === null) return new Promise(() => undefined);
  return Promise.race([diskFailure(holdings, vm), endOf(holdings, vm)]);
}

/** Never resolves when the VM ends otherwise. */
async function diskFailure(holdings: Watched, vm: WatchedVm): Promise<VmEnd> {
  const { disks, files } = holdings;
  if (disks?.hasFailed !== undefined) {
    while (holdings.vm === vm) {
      for (const overlay of [files.overlay(disks.format), files.otherOverlay(disks.format)]) {
        if (!(await isCertain(disks.hasFailed(overlay)))) continue;
        const { message } = errorRegistry.disk_failed;
        return { code: "disk_failed", message, at: new Date(), consoleTail: await vm.consoleTail() };
      }
      await delay(lookIntervalMs, undefined, { ref: false });
    }
  }
  return new Promise(() => undefined);
}

async function endOf(holdings: Watched, vm: WatchedVm): Promise<VmEnd> {
  const { pager, files } = holdings;
  if (pager === null) return vm.ended;
  const served = pagerOf(pager, files);
  const lost = async (): Promise<VmEnd> => {
    while (holdings.vm === vm && (await mayBeAlive(pager))) await delay(lookIntervalMs, undefined, { ref: false });
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

async function mayBeAlive(pager: ProcessIdentity): Promise<boolean> {
  return !(await isCertain(isAlive(pager).then((alive) => !alive)));
}

/** What cannot be looked at, as without a free file descriptor, is no sign of an end. */
async function isCertain(sign: Promise<boolean>): Promise<boolean> {
  try {
    return await sign;
  } catch {
    return false;
  }
}
