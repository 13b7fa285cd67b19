import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { engineMemoryOverheadMib, hostReserve } from "@wrenn/contract";
import { type Layout, wrennLayout } from "@wrenn/system";
import { afterEach, beforeEach, expect, it } from "vitest";
import { Admission, readHostRoom } from "./admission.ts";

const smallMib = 1;

let layout: Layout;
let admission: Admission;
/** All that can be promised on this machine but for one small sandbox. */
let allButSmallMib: number;

beforeEach(async () => {
  layout = wrennLayout(await mkdtemp(path.join(tmpdir(), "wrenn-admission-")));
  await mkdir(layout.sandboxes);
  admission = new Admission(layout);
  const { memoryTotalMib } = await readHostRoom(layout);
  allButSmallMib = memoryTotalMib - hostReserve.memoryMib - smallMib - 2 * engineMemoryOverheadMib;
});

afterEach(async () => {
  await rm(layout.root, { recursive: true });
});

it("promises no memory twice, also while the guests it was promised to have not touched it", async () => {
  const large = admission.adopt(allButSmallMib);
  const small = await admission.admit(smallMib);
  small.settle();
  await expect(admission.admit(smallMib)).rejects.toMatchObject({ code: "host_out_of_memory" });
  large.release();
  await expect(admission.admit(smallMib)).resolves.toBeDefined();
});

it("counts what creations under way will take as taken", async () => {
  const { memoryAvailableMib, memoryTotalMib } = await readHostRoom(layout);
  // Two of these fit into what the machine has, and not into what of it is free.
  const bothMib = (memoryAvailableMib + memoryTotalMib) / 2 - hostReserve.memoryMib;
  const halfMib = Math.floor(bothMib / 2) - engineMemoryOverheadMib;
  const first = await admission.admit(halfMib);
  await expect(admission.admit(halfMib)).rejects.toMatchObject({ code: "host_out_of_memory" });
  first.settle();
  await expect(admission.admit(halfMib)).resolves.toBeDefined();
});

it("gives a promise back once, however often it is asked to", async () => {
  const promise = admission.adopt(allButSmallMib + smallMib + engineMemoryOverheadMib);
  await expect(admission.admit(smallMib)).rejects.toMatchObject({ code: "host_out_of_memory" });
  promise.release();
  promise.release();
  admission.adopt(allButSmallMib + smallMib + engineMemoryOverheadMib);
  await expect(admission.admit(smallMib)).rejects.toMatchObject({ code: "host_out_of_memory" });
});

it("promises memory as many times as it was told to", async () => {
  const generous = new Admission(layout, 2);
  generous.adopt(allButSmallMib);
  await expect(generous.admit(smallMib)).resolves.toBeDefined();
  await expect(generous.admit(smallMib)).resolves.toBeDefined();
  const { memoryTotalMib } = await readHostRoom(layout);
  generous.adopt(memoryTotalMib);
  await expect(generous.admit(smallMib)).rejects.toMatchObject({ code: "host_out_of_memory" });
});
