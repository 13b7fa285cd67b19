import { randomBytes } from "node:crypto";
import { access, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { findPayload, hasPvhEntry, unpackKernelImage } from "./kernel-image.ts";

/** The parts of a 64-bit ELF file that are looked at: its header, one note segment, and some weight. */
function elfWithNote(name: string, type: number): Buffer {
  const elf = Buffer.concat([Buffer.alloc(64 + 56 + 32), randomBytes(4_096)]);
  elf.writeUInt32BE(0x7f454c46, 0);
  elf.writeBigUInt64LE(64n, 0x20);
  elf.writeUInt16LE(56, 0x36);
  elf.writeUInt16LE(1, 0x38);
  elf.writeUInt32LE(4, 64);
  elf.writeBigUInt64LE(120n, 64 + 8);
  elf.writeBigUInt64LE(20n, 64 + 32);
  elf.writeUInt32LE(name.length + 1, 120);
  elf.writeUInt32LE(4, 124);
  elf.writeUInt32LE(type, 128);
  elf.write(`${name}\0`, 132, "latin1");
  return elf;
}

function imageOf(payload: Buffer): Buffer {
  const setup = Buffer.alloc(2 * 512);
  setup.writeUInt8(1, 0x1f1);
  setup.write("HdrS", 0x202, "latin1");
  setup.writeUInt16LE(0x020f, 0x206);
  setup.writeUInt32LE(256, 0x248);
  setup.writeUInt32LE(payload.length, 0x24c);
  return Buffer.concat([setup, Buffer.alloc(256), payload, Buffer.alloc(100)]);
}

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "wrenn-kernel-"));
});
afterEach(async () => {
  await rm(directory, { recursive: true });
});

describe("a kernel image", () => {
  it("gives the kernel that QEMU can start", async () => {
    const kernel = elfWithNote("Xen", 18);
    const target = path.join(directory, "vmlinux");
    expect(await unpackKernelImage(imageOf(gzipSync(kernel)), target)).toBe(true);
    expect((await readFile(target)).equals(kernel)).toBe(true);
  });

  it("is booted as it is when its kernel lacks the entry point", async () => {
    const target = path.join(directory, "vmlinux");
    expect(await unpackKernelImage(imageOf(gzipSync(elfWithNote("Xen", 5))), target)).toBe(false);
    await expect(access(target)).rejects.toThrow("ENOENT");
  });

  it.each([
    ["an unknown compression", imageOf(Buffer.from("unknown"))],
    ["a file that is no kernel", randomBytes(2_048)],
    ["a file that is cut off", imageOf(gzipSync(elfWithNote("Xen", 18))).subarray(0, 2_000)],
    ["an empty file", Buffer.alloc(0)],
  ])("is booted as it is: %s", async (_, image) => {
    expect(await unpackKernelImage(image, path.join(directory, "vmlinux"))).toBe(false);
  });

  it("has its payload where the header says", () => {
    const payload = randomBytes(64);
    expect(findPayload(imageOf(payload))?.equals(payload)).toBe(true);
  });

  it("has an entry point only under the right name and type", () => {
    expect(hasPvhEntry(elfWithNote("Xen", 18))).toBe(true);
    expect(hasPvhEntry(elfWithNote("GNU", 18))).toBe(false);
    expect(hasPvhEntry(Buffer.alloc(10))).toBe(false);
  });
});
