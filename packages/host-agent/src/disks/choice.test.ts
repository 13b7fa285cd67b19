import { expect, it } from "vitest";
import { decide } from "./choice.ts";

const works = { usable: true, reason: "Device-mapper works here." };
const lacks = { usable: false, reason: "The kernel has no device-mapper." };

it("disks are device-mapper's where that works and nothing else was chosen, and say what shows it", () => {
  expect(decide("auto", works)).toEqual({ format: "dm-snapshot", reason: works.reason, dmSnapshot: works });
  expect(decide("auto", lacks)).toEqual({ format: "qcow2", reason: lacks.reason, dmSnapshot: lacks });
});

it("disks are what the operator chose, also where that cannot work, and then say why it cannot", () => {
  expect(decide("qcow2", works)).toMatchObject({ format: "qcow2", reason: "WRENN_DISKS=qcow2 demands it." });
  expect(decide("dm-snapshot", works)).toMatchObject({ format: "dm-snapshot" });
  const reason = `WRENN_DISKS=dm-snapshot demands it. ${lacks.reason}`;
  expect(decide("dm-snapshot", lacks)).toMatchObject({ format: "dm-snapshot", reason });
});
