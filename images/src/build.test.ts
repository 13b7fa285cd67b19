import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { contentName, freshScratch, mountPoints, publishDirectory } from "./build.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "wrenn-build-"));
});
afterEach(async () => {
  await rm(directory, { recursive: true });
});

describe("a build", () => {
  it("removes what interrupted builds left, and nothing else", async () => {
    await mkdir(path.join(directory, ".building-kernel-1"));
    await writeFile(path.join(directory, ".building-kernel-1", "half"), "");
    await mkdir(path.join(directory, "finished"));
    await freshScratch(path.join(directory, ".building-kernel-2"));
    expect((await readdir(directory)).toSorted()).toEqual([".building-kernel-2", "finished"]);
  });

  it("replaces a finished directory as a whole", async () => {
    const place = path.join(directory, "place");
    const scratch = path.join(directory, ".building-x-1");
    await mkdir(place);
    await writeFile(path.join(place, "old"), "");
    await mkdir(scratch);
    await writeFile(path.join(scratch, "new"), "");
    await publishDirectory(scratch, place);
    expect(await readdir(place)).toEqual(["new"]);
    expect(await readdir(directory)).toEqual(["place"]);
  });

  it("is named by its inputs", () => {
    expect(contentName({ a: 1 })).toBe(contentName({ a: 1 }));
    expect(contentName({ a: 1 })).not.toBe(contentName({ a: 2 }));
    expect(contentName({ a: 1 })).toMatch(/^[0-9a-f]{16}$/);
  });
});

describe("mount points", () => {
  it("are read with spaces in them", () => {
    const line = String.raw`36 35 98:0 / /var/lib/my\040images/dev rw,noatime master:1 - devtmpfs none rw`;
    expect(mountPoints(`${line}\n`)).toEqual(["/var/lib/my images/dev"]);
  });
});
