import { wrennLayout } from "@wrenn/system";
import { describe, expect, it } from "vitest";
import { decide, type DiskChoice } from "./choice.ts";
import { HostDisks } from "./host-disks.ts";

const works = { usable: true, reason: "Device-mapper works here." };
const lacks = { usable: false, reason: "The kernel has no device-mapper" };
const qemu = { kind: "qemu-kvm", opens: ["qcow2", "raw"] } as const;
const opensDevicesOnly = { kind: "qemu-kvm", opens: ["raw"] } as const;

function disks(choice: DiskChoice, dmSnapshot = works): HostDisks {
  return new HostDisks(wrennLayout("/nowhere"), decide(choice, dmSnapshot));
}

describe("the disks of a host", () => {
  it("can be used in every format that host and engine know, whichever new ones have", () => {
    for (const choice of ["qcow2", "dm-snapshot"] as const) {
      const host = disks(choice);
      expect(host.current.format).toBe(choice);
      host.assertUsable("qcow2", qemu);
      host.assertUsable("dm-snapshot", qemu);
      expect(host.usableBy(qemu)).toEqual(["qcow2", "dm-snapshot"]);
      expect(host.usableBy(opensDevicesOnly)).toEqual(["dm-snapshot"]);
    }
    expect(disks("auto", lacks).usableBy(qemu)).toEqual(["qcow2"]);
  });

  it("are refused as snapshot_incompatible in a format that the host or the engine does not know", () => {
    expect(() => disks("auto", lacks).assertUsable("dm-snapshot", qemu)).toThrow(
      expect.objectContaining({
        code: "snapshot_incompatible",
        message: expect.stringContaining(lacks.reason) as string,
      }),
    );
    expect(() => disks("auto").assertUsable("qcow2", opensDevicesOnly)).toThrow(
      expect.objectContaining({ code: "snapshot_incompatible" }),
    );
  });

  it("say what is missing when it is new ones that cannot be used", () => {
    const host = disks("dm-snapshot", lacks);
    expect(() => host.assertUsable("dm-snapshot", qemu)).toThrow(
      expect.objectContaining({ code: "disk_setup_failed", message: expect.stringContaining(lacks.reason) as string }),
    );
    expect(() => disks("qcow2").assertUsable("qcow2", opensDevicesOnly)).toThrow(
      expect.objectContaining({ code: "disk_setup_failed" }),
    );
  });

  it("that are attached can be given back in every format, whatever new ones are and whether they work", () => {
    expect(disks("qcow2", lacks).of("dm-snapshot").format).toBe("dm-snapshot");
    expect(disks("dm-snapshot").of("qcow2").format).toBe("qcow2");
  });
});
