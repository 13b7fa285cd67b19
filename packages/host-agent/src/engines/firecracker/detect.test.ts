import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { detectFirecracker, parseVersion } from "./detect.ts";

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "wrenn-detect-"));
});

afterEach(async () => {
  await rm(directory, { recursive: true });
});

/** A program that prints this when it is asked for its version. */
async function program(name: string, says: string): Promise<string> {
  const file = path.join(directory, name);
  await writeFile(file, `#!/bin/sh\necho '${says}'\n`);
  await chmod(file, 0o755);
  return file;
}

it("reads versions as both programs print them, of releases and of what was built between them", () => {
  expect(parseVersion("Firecracker", "Firecracker v1.16.1\n\n2026-01-01T00:00:00 exiting\n")).toEqual({
    text: "1.16.1",
    major: 1,
    minor: 16,
  });
  expect(parseVersion("Jailer", "Jailer v1.17.0-dev\n")).toEqual({ text: "1.17.0-dev", major: 1, minor: 17 });
  expect(parseVersion("Jailer", "Firecracker v1.16.1\n")).toBeNull();
  expect(parseVersion("Firecracker", "QEMU emulator version 7.2.0\n")).toBeNull();
});

it("wants both programs of one release", async () => {
  const firecracker = await program("firecracker", "Firecracker v1.16.1");
  const jailer = await program("jailer", "Jailer v1.16.1");
  await expect(detectFirecracker({ firecracker, jailer })).resolves.toEqual({
    path: firecracker,
    jailer,
    version: "1.16.1",
  });
  const other = await program("other-jailer", "Jailer v1.16.0");
  await expect(detectFirecracker({ firecracker, jailer: other })).rejects.toMatchObject({ code: "engine_missing" });
});

it("refuses one that is too old, with the version that is there", async () => {
  const firecracker = await program("firecracker", "Firecracker v1.15.1");
  const jailer = await program("jailer", "Jailer v1.15.1");
  await expect(detectFirecracker({ firecracker, jailer })).rejects.toMatchObject({
    code: "engine_too_old",
    message: expect.stringContaining("1.15.1") as string,
  });
});

it("says which variable names what is not there, cannot be run, or is another program", async () => {
  const jailer = await program("jailer", "Jailer v1.16.1");
  const missing = path.join(directory, "none");
  await expect(detectFirecracker({ firecracker: missing, jailer })).rejects.toMatchObject({
    code: "engine_missing",
    message: `WRENN_FIRECRACKER_BIN names ${missing}, which does not exist.`,
  });
  await expect(detectFirecracker({ firecracker: jailer, jailer })).rejects.toMatchObject({ code: "engine_missing" });
  await chmod(jailer, 0o644);
  const firecracker = await program("firecracker", "Firecracker v1.16.1");
  await expect(detectFirecracker({ firecracker, jailer })).rejects.toMatchObject({
    code: "engine_missing",
    message: expect.stringContaining(`WRENN_JAILER_BIN names ${jailer}`) as string,
  });
});
