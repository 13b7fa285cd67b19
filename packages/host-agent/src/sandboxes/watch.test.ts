/** What ends a VM that runs by itself. */
import { mkdir, mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { newId } from "@wrenn/contract";
import { wrennLayout } from "@wrenn/system";
import { expect, it, onTestFinished } from "vitest";
import { deferred } from "../deferred.ts";
import { DmSnapshotDisks } from "../disks/dm-snapshot/dm-snapshot-disks.ts";
import type { VmEnd } from "../engines/engine.ts";
import { watchVm } from "./watch.ts";

/** What watches a VM whose engine lives, as far as can be seen from here, until `end`. */
async function watched() {
  const layout = wrennLayout(await mkdtemp(path.join(tmpdir(), "wrenn-watch-")));
  onTestFinished(() => rm(layout.root, { recursive: true }));
  const sandboxId = newId("sandbox");
  const files = layout.sandbox(sandboxId);
  await mkdir(files.directory, { recursive: true });
  const disks = new DmSnapshotDisks(layout);
  const overlay = files.otherOverlay(disks.format);
  const below = { layers: [], rootfs: "/nowhere" };
  await disks.createOverlay({ sandboxId, file: overlay, below, sizeMib: 16, uid: 0 });
  const ending = deferred<VmEnd>();
  const vm = { ended: ending.promise, consoleTail: async () => "last words" };
  return {
    holdings: { pager: null, files, disks, vm: vm as typeof vm | null },
    overlay,
    end: (end: VmEnd) => ending.resolve(end),
  };
}

it("a VM whose disk the kernel has given up ends by that, with a code of its own", async () => {
  const { holdings, overlay } = await watched();
  const handle = await open(overlay, "r+");
  // As the kernel does it: no longer valid.
  await handle.write(Buffer.from([0]), 0, 1, 4);
  await handle.close();
  expect(await watchVm(holdings)).toMatchObject({ code: "disk_failed", consoleTail: "last words" });
});

it("a VM whose disk is sound, or is not there, ends by itself only", async () => {
  for (const remove of [false, true]) {
    const { holdings, overlay, end } = await watched();
    if (remove) await rm(overlay);
    const ended = watchVm(holdings);
    end({ code: "vm_died", message: "", at: new Date(), consoleTail: "" });
    expect((await ended).code).toBe("vm_died");
    // Otherwise its disk would be looked at for ever.
    holdings.vm = null;
  }
});
