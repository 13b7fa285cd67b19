import { lstat, mkdir, mkdtemp, readdir, readFile, readlink, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { mergeDirectory } from "./merge.ts";

let root: string;
let from: string;
let to: string;

beforeEach(async () => {
  root = await mkdtemp(path.join(tmpdir(), "wrenn-merge-"));
  from = path.join(root, "from");
  to = path.join(root, "to");
  await mkdir(path.join(from, "both"), { recursive: true });
  await mkdir(path.join(to, "both"), { recursive: true });
});

afterEach(() => rm(root, { recursive: true }));

it("files replace files and links, directories are merged, and what else is there stays", async () => {
  await writeFile(path.join(from, "both/file"), "new");
  await writeFile(path.join(from, "both/link"), "new");
  await symlink("anywhere", path.join(from, "fresh"));
  await writeFile(path.join(to, "both/file"), "old");
  await symlink("../kept", path.join(to, "both/link"));
  await writeFile(path.join(to, "kept"), "kept");
  await mergeDirectory(from, to);
  expect(await readdir(to)).toEqual(["both", "fresh", "kept"]);
  expect(await readFile(path.join(to, "both/file"), "utf8")).toBe("new");
  expect((await lstat(path.join(to, "both/link"))).isFile()).toBe(true);
  expect(await readlink(path.join(to, "fresh"))).toBe("anywhere");
  expect(await readFile(path.join(to, "kept"), "utf8")).toBe("kept");
});

it("names that are no UTF-8 stay what they are", async () => {
  const name = Buffer.from([0x66, 0xff, 0xfe]);
  await writeFile(Buffer.concat([Buffer.from(`${from}/both/`), name]), "odd");
  await mergeDirectory(from, to);
  expect(await readdir(path.join(to, "both"), { encoding: "buffer" })).toEqual([name]);
});

it.each([
  ["a directory onto a file", "both/new/inner", "both/new"],
  ["a file onto a directory", "both/new", "both/new/inner"],
])("%s is refused", async (_what, source, existing) => {
  for (const [side, file] of [[from, source] as const, [to, existing] as const]) {
    await mkdir(path.dirname(path.join(side, file)), { recursive: true });
    await writeFile(path.join(side, file), "x");
  }
  await expect(mergeDirectory(from, to)).rejects.toMatchObject({ code: "wrong_file_type" });
  expect(await readFile(path.join(to, existing), "utf8")).toBe("x");
});
