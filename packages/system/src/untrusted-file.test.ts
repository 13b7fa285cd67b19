import { link, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { run } from "./subprocess.ts";
import { readUntrusted } from "./untrusted-file.ts";

let directory: string;
let file: string;

beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "wrenn-untrusted-"));
  file = path.join(directory, "file");
});
afterEach(async () => {
  await rm(directory, { recursive: true });
});

describe("a file that somebody else could have put there", () => {
  it("is read when it is an ordinary file of bounded length", async () => {
    await writeFile(file, "12345");
    expect((await readUntrusted(file, 5))?.toString()).toBe("12345");
    await expect(readUntrusted(file, 4)).rejects.toMatchObject({ code: "engine_failed" });
  });

  it("is null when there is none", async () => {
    expect(await readUntrusted(file, 5)).toBeNull();
  });

  it("is refused when it is another file under this name", async () => {
    const secret = path.join(directory, "secret");
    await writeFile(secret, "secret");
    await symlink(secret, file);
    await expect(readUntrusted(file, 100)).rejects.toMatchObject({ code: "engine_failed" });
    await rm(file);
    await link(secret, file);
    await expect(readUntrusted(file, 100)).rejects.toMatchObject({ code: "engine_failed" });
  });

  it("is refused, and not waited for, when it is a pipe or a directory", async () => {
    await run("mkfifo", [file]);
    await expect(readUntrusted(file, 100)).rejects.toMatchObject({ code: "engine_failed" });
    await expect(readUntrusted(directory, 100)).rejects.toMatchObject({ code: "engine_failed" });
  });
});
