import { newId } from "@wrenn/contract";
import { expect, it } from "vitest";
import { DeviceNames } from "./device-names.ts";

const names = new DeviceNames("/var/lib/wrenn");

it("the devices of one Wrenn are not those of another on the same host", () => {
  const others = new DeviceNames("/srv/wrenn");
  const id = newId("sandbox");
  expect(names.isSandbox(names.sandbox(id))).toBe(true);
  expect(others.isSandbox(names.sandbox(id))).toBe(false);
  expect(others.isShared(names.layer(newId("layer"), 5_120))).toBe(false);
});

it("a disk of another size has another device for the same layer and root filesystem", () => {
  const layer = newId("layer");
  expect(names.layer(layer, 5_120)).not.toBe(names.layer(layer, 5_121));
  expect(names.base("/rootfs", 5_120)).not.toBe(names.base("/rootfs", 5_121));
  expect(names.base("/rootfs", 5_120)).not.toBe(names.base("/other", 5_120));
});

it("what is shared is told from what is a sandbox's own", () => {
  const all = [names.sandbox(newId("sandbox")), names.layer(newId("layer"), 1), names.base("/rootfs", 1)];
  expect(all.map((name) => names.isShared(name))).toEqual([false, true, true]);
  expect(all.map((name) => names.isSandbox(name))).toEqual([true, false, false]);
  // The kernel's limit, with the closing NUL (DM_NAME_LEN).
  expect(Math.max(...all.map((name) => name.length))).toBeLessThan(128);
});
