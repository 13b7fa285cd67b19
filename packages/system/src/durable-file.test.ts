import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { readJson, writeDurably, writeJsonDurably } from "./durable-file.ts";

const scratch = await mkdtemp(path.join(os.tmpdir(), "wrenn-durable-"));
afterAll(() => rm(scratch, { recursive: true }));

describe("durable files", () => {
  it("replace the old content as a whole, with the mode asked for", async () => {
    const file = path.join(scratch, "credentials.json");
    await writeFile(file, "a much longer old content", { mode: 0o644 });
    await writeJsonDurably(file, { key: "value" });
    expect(await readJson(file)).toEqual({ key: "value" });
    expect((await stat(file)).mode & 0o777).toBe(0o600);
  });

  it("leave the old content and nothing else when writing fails", async () => {
    // A file cannot be renamed over a directory.
    const target = path.join(scratch, "target");
    await mkdir(target);
    await writeFile(path.join(target, "old"), "old");
    await expect(writeDurably(target, "new")).rejects.toThrow("EISDIR");
    expect(await readFile(path.join(target, "old"), "utf8")).toBe("old");
    expect((await readdir(scratch)).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  });

  it("read as null when they are not there, and fail when they are not JSON", async () => {
    expect(await readJson(path.join(scratch, "absent.json"))).toBeNull();
    await writeFile(path.join(scratch, "torn.json"), '{"a":');
    await expect(readJson(path.join(scratch, "torn.json"))).rejects.toThrow(SyntaxError);
  });
});
