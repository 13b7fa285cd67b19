import { describe, expect, it } from "vitest";
import { bootManifestSchema, templateManifestSchema } from "./boot.ts";

const guestAgent = "ab".repeat(32);

describe("the boot manifest", () => {
  it("names kernel and initramfs below boot/", () => {
    const manifest = { kernel: "0a1b/vmlinux", initramfs: "0a1b/initramfs.cpio", kernelVersion: "6.1.0", guestAgent };
    expect(bootManifestSchema.parse(manifest)).toEqual(manifest);
  });

  it.each(["../vmlinux", "/boot/vmlinux", "0a1b/../../vmlinux", "0a1b", "a/.hidden"])(
    "refuses the path %s",
    (kernel) => {
      const manifest = { kernel, initramfs: "0a1b/initramfs.cpio", kernelVersion: "6.1.0", guestAgent };
      expect(bootManifestSchema.safeParse(manifest).success).toBe(false);
    },
  );
});

describe("a template's manifest", () => {
  it("names a file beside it", () => {
    expect(templateManifestSchema.safeParse({ rootfs: "rootfs-0a1b.ext4", diskMib: 5_120 }).success).toBe(true);
  });

  it.each(["../rootfs.ext4", "a/rootfs.ext4", "", ".rootfs"])("refuses the name %j", (rootfs) => {
    expect(templateManifestSchema.safeParse({ rootfs, diskMib: 5_120 }).success).toBe(false);
  });
});
