import { mkdir, mkdtemp, rm, stat, symlink, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { makeDirectory } from "./make-directory.ts";

const scratch = await mkdtemp(path.join(os.tmpdir(), "wrenn-directory-"));
afterAll(() => rm(scratch, { recursive: true }));

async function modeOf(directory: string): Promise<number> {
  return (await stat(directory)).mode & 0o777;
}

describe("a directory that is made", () => {
  it("comes with what is missing above it, in the mode asked for", async () => {
    await makeDirectory(path.join(scratch, "a/b/c"), 0o711);
    for (const made of ["a", "a/b", "a/b/c"]) expect(await modeOf(path.join(scratch, made))).toBe(0o711);
  });

  it("stays as it is when it is there, also behind a link", async () => {
    const there = path.join(scratch, "there");
    await mkdir(there, { mode: 0o700 });
    await symlink(there, path.join(scratch, "link"));
    for (const name of ["there", "link"]) await makeDirectory(path.join(scratch, name), 0o711);
    expect(await modeOf(there)).toBe(0o700);
  });

  it("fails by its own name where something else is in its place", async () => {
    const file = path.join(scratch, "file");
    await writeFile(file, "");
    await symlink(path.join(scratch, "nowhere"), path.join(scratch, "dangling"));
    await expect(makeDirectory(file)).rejects.toThrow("EEXIST");
    await expect(makeDirectory(path.join(file, "below"))).rejects.toThrow("ENOTDIR");
    await expect(makeDirectory(path.join(scratch, "dangling/below"))).rejects.toThrow("ENOENT");
  });
});
