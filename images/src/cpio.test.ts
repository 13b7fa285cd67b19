import { findProgram, run } from "@wrenn/system";
import { describe, expect, it } from "vitest";
import { type CpioEntry, writeCpio } from "./cpio.ts";

const entries: CpioEntry[] = [
  { kind: "directory", name: "dev", mode: 0o755 },
  { kind: "character-device", name: "dev/console", mode: 0o600, major: 5, minor: 1 },
  { kind: "file", name: "init", mode: 0o755, content: Buffer.from("binary") },
  { kind: "file", name: "empty", mode: 0o644, content: Buffer.alloc(0) },
];

/** Reads an archive by the format's description alone. */
function read(archive: Buffer): { name: string; mode: number; device: [number, number]; content: string }[] {
  const found = [];
  const aligned = (offset: number): number => Math.ceil(offset / 4) * 4;
  for (let at = 0; ;) {
    expect(archive.toString("latin1", at, at + 6)).toBe("070701");
    const field = (index: number): number =>
      Number.parseInt(archive.toString("latin1", at + 6 + index * 8, at + 14 + index * 8), 16);
    const [mode, size, major, minor, nameBytes] = [field(1), field(6), field(9), field(10), field(11)];
    const name = archive.toString("latin1", at + 110, at + 110 + nameBytes - 1);
    const content = aligned(at + 110 + nameBytes);
    if (name === "TRAILER!!!") return found;
    found.push({
      name,
      mode,
      device: [major, minor] satisfies [number, number],
      content: archive.toString("latin1", content, content + size),
    });
    at = aligned(content + size);
  }
}

describe("a cpio archive", () => {
  it("holds names, modes, device numbers and contents", () => {
    expect(read(writeCpio(entries))).toEqual([
      { name: "dev", mode: 0o040755, device: [0, 0], content: "" },
      { name: "dev/console", mode: 0o020600, device: [5, 1], content: "" },
      { name: "init", mode: 0o100755, device: [0, 0], content: "binary" },
      { name: "empty", mode: 0o100644, device: [0, 0], content: "" },
    ]);
  });

  it("is the same for the same entries, in whole blocks", () => {
    const archive = writeCpio(entries);
    expect(archive.equals(writeCpio(entries))).toBe(true);
    expect(archive.length % 512).toBe(0);
  });

  it("is read by cpio, where there is one", async ({ skip }) => {
    if ((await findProgram("cpio")) === null) skip();
    const { stdout } = await run("cpio", ["--list", "--quiet"], { input: writeCpio(entries) });
    expect(stdout.trim().split("\n")).toEqual(entries.map(({ name }) => name));
  });
});
