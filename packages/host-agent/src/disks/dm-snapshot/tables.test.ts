import { expect, it } from "vitest";
import { filledTable, snapshotTable } from "./tables.ts";

it("a disk is the device below it with changes in chunks of 4 KiB", () => {
  expect(snapshotTable(10_485_760, "/dev/mapper/below", "/dev/loop3")).toBe(
    "0 10485760 snapshot /dev/mapper/below /dev/loop3 P 8",
  );
});

it.each([
  { sectors: 100, deviceSectors: 100, table: "0 100 linear /dev/loop3 0" },
  { sectors: 100, deviceSectors: 64, table: "0 64 linear /dev/loop3 0\n64 36 zero" },
  { sectors: 100, deviceSectors: 200, table: "0 100 linear /dev/loop3 0" },
])("a device of $deviceSectors sectors is made one of $sectors", ({ sectors, deviceSectors, table }) => {
  expect(filledTable(sectors, "/dev/loop3", deviceSectors)).toBe(table);
});
