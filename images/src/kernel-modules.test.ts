import { describe, expect, it } from "vitest";
import { moduleName, resolveModules } from "./kernel-modules.ts";

const index = {
  dep: [
    "kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko",
    "kernel/drivers/virtio/virtio_ring.ko:",
    "kernel/drivers/virtio/virtio-mmio.ko.xz: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko",
    "kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/fs/mbcache.ko",
    "kernel/fs/jbd2/jbd2.ko:",
    "kernel/fs/mbcache.ko:",
    "kernel/arch/x86/crypto/crc32c-intel.ko:",
    "kernel/crypto/crc32c_generic.ko:",
  ].join("\n"),
  builtin: "kernel/drivers/net/virtio_net.ko\n",
  softdep: "# Soft dependencies extracted from modules themselves.\nsoftdep ext4 pre: crc32c post: late\n",
  alias: "alias crc32c crc32c_intel\nalias crc32c crc32c_generic\nalias fs-ext4 ext4\n",
};

describe("the order of kernel modules", () => {
  it("has each module after all it depends on, and once", () => {
    expect(resolveModules(["virtio_mmio", "virtio"], index)).toEqual([
      "kernel/drivers/virtio/virtio_ring.ko",
      "kernel/drivers/virtio/virtio.ko",
      "kernel/drivers/virtio/virtio-mmio.ko.xz",
    ]);
  });

  it("leaves out what the kernel contains", () => {
    expect(resolveModules(["virtio-net"], index)).toEqual([]);
  });

  it("adds what a module asks for while it loads, in the form for any processor", () => {
    expect(resolveModules(["ext4"], index)).toEqual([
      "kernel/fs/mbcache.ko",
      "kernel/fs/jbd2/jbd2.ko",
      "kernel/crypto/crc32c_generic.ko",
      "kernel/fs/ext4/ext4.ko",
    ]);
  });

  it("refuses a kernel that lacks a module", () => {
    expect(() => resolveModules(["virtio_blk"], index)).toThrow("no module virtio_blk");
  });

  it("treats dashes and compression as the kernel does", () => {
    expect(moduleName("kernel/drivers/char/hw_random/virtio-rng.ko.zst")).toBe("virtio_rng");
  });
});
