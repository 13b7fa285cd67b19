import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { detectQemu, parseQemuVersion } from "./detect.ts";

let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "wrenn-detect-"));
});

afterAll(async () => {
  await rm(directory, { recursive: true });
});

/** A program that does nothing but say a version, for versions this machine does not have. */
async function programThatSays(words: string): Promise<string> {
  const file = path.join(directory, "fake-qemu");
  await writeFile(file, `#!/bin/sh\necho '${words}'\n`);
  await chmod(file, 0o755);
  return file;
}

it("reads distributions' versions", () => {
  expect(parseQemuVersion("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright")).toMatchObject({
    text: "7.2.22",
    major: 7,
    minor: 2,
  });
  expect(parseQemuVersion("QEMU emulator version 10.0.50 (v10.0.0-123)")).toMatchObject({ major: 10, minor: 0 });
  expect(parseQemuVersion("bash: no such thing")).toBeNull();
});

it("says which QEMU is too old, and which would do", async () => {
  const old = await programThatSays("QEMU emulator version 6.2.0 (Debian 1:6.2+dfsg-2ubuntu6)");
  await expect(detectQemu(old)).rejects.toMatchObject({
    code: "engine_too_old",
    message: `${old} is QEMU 6.2.0; 7.2 or newer is needed.`,
  });
});

it("accepts the oldest and any newer one", async () => {
  for (const version of ["7.2.0", "8.0.0", "10.1.2"]) {
    const program = await programThatSays(`QEMU emulator version ${version}`);
    await expect(detectQemu(program)).resolves.toEqual({ path: program, version });
  }
});

it("says that a chosen QEMU is not there, or is none", async () => {
  await expect(detectQemu("/nowhere/qemu")).rejects.toMatchObject({ code: "engine_missing" });
  await expect(detectQemu(await programThatSays("hello"))).rejects.toMatchObject({ code: "engine_missing" });
});
