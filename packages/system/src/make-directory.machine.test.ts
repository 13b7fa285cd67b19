import { mkdtemp, readdir, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { makeDirectory } from "./make-directory.ts";
import { run } from "./subprocess.ts";

let full: string;

beforeAll(async () => {
  full = await mkdtemp(path.join(os.tmpdir(), "wrenn-full-"));
  // One file besides its own directory.
  await run("mount", ["-t", "tmpfs", "-o", "nr_inodes=2", "wrenn-test", full]);
});

afterAll(async () => {
  await run("umount", [full]);
  await rm(full, { recursive: true });
});

it("a directory for which there is no space fails because of that, at whatever depth", async () => {
  await expect(makeDirectory(path.join(full, "a/b"))).rejects.toThrow("ENOSPC");
  await expect(makeDirectory(path.join(full, "c"))).rejects.toThrow("ENOSPC");
  await makeDirectory(path.join(full, "a"));
  expect(await readdir(full)).toEqual(["a"]);
});
