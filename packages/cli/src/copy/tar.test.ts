import { chmod, mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { run } from "@wrenn/system";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { pack, unpack } from "./tar.ts";

let root: string;
let into: string;

beforeEach(async () => {
  root = await mkdtemp(path.join(tmpdir(), "wrenn-tar-"));
  into = path.join(root, "into");
  await mkdir(into);
});

afterEach(() => rm(root, { recursive: true }));

async function collect(pieces: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = [];
  for await (const piece of pieces) all.push(piece);
  return Buffer.concat(all);
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield await Promise.resolve(bytes);
}

const never = new AbortController().signal;

describe("an archive", () => {
  it("of the named entries, whatever their names, and of none", async () => {
    const names = ["-dash", "new\nline", "*"];
    for (const name of [...names, "other"]) await writeFile(path.join(root, name), name);
    const archive = pack(
      root,
      names.map((name) => Buffer.from(name)),
    );
    const bytes = await collect(archive.pieces);
    expect(await archive.finish()).toBe("");
    await unpack(once(bytes), into, never);
    for (const name of names) expect(await readFile(path.join(into, name), "utf8")).toBe(name);
    await expect(stat(path.join(into, "other"))).rejects.toMatchObject({ code: "ENOENT" });

    const empty = pack(root, []);
    await unpack(once(await collect(empty.pieces)), into, never);
    expect(await empty.finish()).toBe("");
  });

  it("of something that is not there is an error", async () => {
    const archive = pack(root, [Buffer.from("nothing")]);
    await collect(archive.pieces);
    await expect(archive.finish()).rejects.toMatchObject({
      code: "local_file_failed",
      message: expect.stringContaining("nothing: Cannot stat: No such file or directory") as string,
    });
  });
});

describe("unpacking", () => {
  it("keeps permissions whatever our umask, but not those that lend the owner's", async () => {
    await writeFile(path.join(root, "file"), "");
    await chmod(path.join(root, "file"), 0o6777);
    const archive = pack(root, [Buffer.from("file")]);
    await unpack(archive.pieces, into, never);
    expect((await stat(path.join(into, "file"))).mode & 0o7777).toBe(0o777);
  });

  it("is not led out of its directory", async () => {
    await writeFile(path.join(root, "victim"), "safe");
    await writeFile(path.join(root, "evil"), "evil");
    const make = (...args: string[]) =>
      run("tar", ["--create", "--file", path.join(root, "evil.tar"), "-P", "-C", root, ...args]);
    await make("--transform=s,^evil$,../victim,", "evil");
    await expect(unpack(once(await readFile(path.join(root, "evil.tar"))), into, never)).rejects.toMatchObject({
      code: "local_file_failed",
    });
    // By way of a link that the archive brings itself.
    await symlink(root, path.join(root, "link"));
    await make("link", "--transform=s,^evil$,link/victim,", "evil");
    await unpack(once(await readFile(path.join(root, "evil.tar"))), into, never).catch(() => undefined);
    expect(await readFile(path.join(root, "victim"), "utf8")).toBe("safe");
  });

  it("of what is cut short or is no archive fails, in tar's own words", async () => {
    await expect(unpack(once(Buffer.from("nonsense".repeat(200))), into, never)).rejects.toMatchObject({
      code: "local_file_failed",
      message: expect.stringContaining("does not look like a tar archive") as string,
    });
    await writeFile(path.join(root, "file"), Buffer.alloc(100_000));
    const whole = await collect(pack(root, [Buffer.from("file")]).pieces);
    await expect(unpack(once(whole.subarray(0, 50_000)), into, never)).rejects.toMatchObject({
      message: expect.stringContaining("Unexpected EOF") as string,
    });
  });

  it("ends when what it reads breaks off, and when it is told to", async () => {
    async function* broken(): AsyncGenerator<Uint8Array> {
      yield await Promise.resolve(Buffer.alloc(512));
      throw new Error("the connection broke");
    }
    await expect(unpack(broken(), into, never)).rejects.toThrow("the connection broke");
    const stop = new AbortController();
    async function* endless(): AsyncGenerator<Uint8Array> {
      yield await Promise.resolve(Buffer.alloc(512));
      stop.abort(new Error("enough"));
      await new Promise(() => undefined);
    }
    await expect(unpack(endless(), into, stop.signal)).rejects.toMatchObject({ name: "AbortError" });
  });
});
