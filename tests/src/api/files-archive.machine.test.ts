import { execFile, spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  symlink,
  utimes,
  writeFile,
} from "node:fs/promises";
import type http from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { eventually } from "@wrenn/control-plane/testing";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { smallDiskBytes, user } from "../guest-agent/harness.ts";
import { useApiServer } from "../harness/api-server.ts";
import { FilesApi, refusalOf, refused } from "../harness/files-api.ts";

const mib = 1_048_576;
const run = promisify(execFile);

const api = useApiServer();
const files = new FilesApi(api);
const { outside } = files;
/** On this machine, for the test's own side. */
let here: string;
beforeAll(async () => {
  here = await mkdtemp(path.join(tmpdir(), "wrenn-archives-"));
});
afterAll(async () => rm(here, { recursive: true, force: true }));

/** A tree with everything that a copy tends to lose. */
async function makeTree(root: string): Promise<void> {
  await mkdir(path.join(root, "deep", "d".repeat(120), "ü 日本"), { recursive: true });
  await mkdir(path.join(root, "empty"), { mode: 0o700 });
  await writeFile(path.join(root, "deep", "d".repeat(120), "ü 日本", "n".repeat(200)), "deep");
  await writeFile(path.join(root, "script"), "#!/bin/sh\n");
  await chmod(path.join(root, "script"), 0o755);
  await writeFile(path.join(root, "two\nlines"), "");
  await writeFile(path.join(root, "large"), randomBytes(8 * mib + 17));
  await symlink("script", path.join(root, "link"));
  await symlink("/nowhere", path.join(root, "dangling"));
  await utimes(path.join(root, "script"), 1_000_000_000, 1_000_000_000);
}

/** Names, kinds, modes, times of change and contents. */
async function describeTree(root: string): Promise<string[]> {
  const names = await readdir(root, { recursive: true });
  const lines = names.map(async (name) => {
    const file = path.join(root, name);
    const entry = await lstat(file);
    const mode = (entry.mode & 0o7777).toString(8);
    if (entry.isSymbolicLink()) return `${name} -> ${await readlink(file)}`;
    if (entry.isDirectory()) return `${name}/ ${mode}`;
    const hash = createHash("sha256").update(await readFile(file));
    return `${name} ${mode} ${Math.floor(entry.mtimeMs / 1_000)} ${hash.digest("hex")}`;
  });
  return (await Promise.all(lines)).sort();
}

async function tarOf(directory: string): Promise<Buffer> {
  const { stdout } = await run("tar", ["-C", directory, "-cf", "-", "."], { encoding: "buffer", maxBuffer: 512 * mib });
  return stdout;
}

async function putArchive(directory: string, body: RequestInit["body"], headers = {}): Promise<Response> {
  return files.fetch("/archive", { path: directory }, { method: "PUT", body: body ?? null, headers, duplex: "half" });
}

describe("a directory as a tar archive", () => {
  test("comes down whole: links, modes, times, empty directories and odd names", async () => {
    await makeTree(outside("/home/user/tree"));
    const got = await files.fetch("/archive", { path: "tree" });
    expect(Object.fromEntries(got.headers)).toMatchObject({
      "content-type": "application/x-tar",
      "content-disposition": "attachment; filename*=utf-8''tree.tar",
      "x-content-type-options": "nosniff",
      "cache-control": "private, no-cache",
    });
    const archive = path.join(here, "tree.tar");
    await writeFile(archive, Buffer.from(await got.arrayBuffer()));
    const { stdout: names } = await run("tar", ["-tf", archive]);
    expect(names.split("\n")).toContain("empty/");
    const copy = path.join(here, "tree");
    await mkdir(copy);
    await run("tar", ["-C", copy, "-xpf", archive]);
    expect(await describeTree(copy)).toEqual(await describeTree(outside("/home/user/tree")));
  });

  test("goes up whole, for the user, into a directory that is made", async () => {
    const source = path.join(here, "source");
    await makeTree(source);
    const put = await putArchive("new/place", await tarOf(source));
    expect([put.status, await put.json()]).toMatchObject([
      200,
      { path: "/home/user/new/place", type: "directory", owner: user.name },
    ]);
    expect(await describeTree(outside("/home/user/new/place"))).toEqual(await describeTree(source));
    expect(await lstat(outside("/home/user/new/place/large"))).toMatchObject({ uid: user.uid, gid: user.gid });
  });

  test("goes up in pieces of any size", async () => {
    const source = path.join(here, "pieces");
    await mkdir(source);
    await writeFile(path.join(source, "file"), randomBytes(5_000));
    const archive = await tarOf(source);
    const { request, answered } = files.startUpload("/archive", { path: "pieces" }, { "Content-Type": "text/plain" });
    for (let at = 0; at < archive.length; at += 777) {
      if (!request.write(archive.subarray(at, at + 777))) await once(request, "drain");
    }
    request.end();
    expect((await answered).statusCode).toBe(200);
    expect(await describeTree(outside("/home/user/pieces"))).toEqual(await describeTree(source));
  });

  test("of one file is an archive of one", async () => {
    await writeFile(outside("/home/user/single (1)"), "alone");
    const got = await files.fetch("/archive", { path: "single (1)" });
    expect(got.headers.get("content-disposition")).toBe("attachment; filename*=utf-8''single%20%281%29.tar");
    const archive = path.join(here, "single.tar");
    await writeFile(archive, Buffer.from(await got.arrayBuffer()));
    expect((await run("tar", ["-xOf", archive])).stdout).toBe("alone");
  });

  test("of what is not there, or of another kind", async () => {
    await writeFile(outside("/home/user/file"), "kept");
    expect(await refusalOf(await files.fetch("/archive", { path: "missing" }))).toEqual(refused(404, "file_not_found"));
    expect(await refusalOf(await files.fetch("/archive", { path: "/dev/null" }))).toEqual(
      refused(400, "wrong_file_type"),
    );
    for (const target of ["file", "file/below"]) {
      expect(await refusalOf(await putArchive(target, await tarOf(here)))).toEqual(refused(400, "wrong_file_type"));
    }
    expect((await files.fetch("/archive", { path: "file" }, { method: "HEAD" })).status).toBe(405);
  });
});

describe("an archive that is none", () => {
  test("is refused: cut short, something else, nothing at all", async () => {
    const source = path.join(here, "short");
    await mkdir(source);
    await writeFile(path.join(source, "file"), randomBytes(100_000));
    const archive = await tarOf(source);
    for (const body of [archive.subarray(0, 50_000), Buffer.alloc(2_048, "x"), Buffer.alloc(0), gzipSync(archive)]) {
      expect(await refusalOf(await putArchive("refused", body))).toEqual(refused(400, "invalid_archive"));
    }
    expect(await files.namesIn("/home/user/refused")).toEqual([]);
    const coded = await putArchive("refused", gzipSync(archive), { "Content-Encoding": "gzip" });
    expect(await refusalOf(coded)).toEqual(refused(415, "unsupported_media_type"));
  });

  test("is refused when it leads outside, and nothing is written there", async () => {
    const source = path.join(here, "outside");
    await mkdir(source);
    await writeFile(path.join(source, "file"), "x");
    const { stdout } = await run("tar", ["-C", source, "-P", "-cf", "-", "--transform=s,^file$,../escaped,", "file"], {
      encoding: "buffer",
    });
    expect(await refusalOf(await putArchive("jail", stdout))).toEqual(refused(400, "invalid_archive"));
    await expect(lstat(outside("/home/user/escaped"))).rejects.toThrow("ENOENT");
  });
});

test("an archive that does not fit on the disk says so", async () => {
  const source = path.join(here, "too-large");
  await mkdir(source);
  await writeFile(path.join(source, "file"), randomBytes(4 * smallDiskBytes));
  const put = await putArchive("/mnt/unpacked", await tarOf(source));
  expect(await refusalOf(put)).toEqual(refused(507, "guest_out_of_disk"));
  expect(await files.namesIn("/mnt/unpacked")).toEqual([]);
  await rm(outside("/mnt/unpacked"), { recursive: true });
});

test("clients that leave in the middle, in either direction, leave no file that is not whole", async () => {
  const source = path.join(here, "leaving");
  await mkdir(source);
  await writeFile(path.join(source, "file"), randomBytes(16 * mib));
  const { request } = files.startUpload("/archive", { path: "leaving" });
  request.write((await tarOf(source)).subarray(0, 4 * mib));
  await eventually(async () => expect(await files.unfinished("/home/user/leaving")).toHaveLength(1));
  request.destroy();
  await eventually(async () => expect(await files.namesIn("/home/user/leaving")).toEqual([]));

  await mkdir(outside("/home/user/large"));
  await writeFile(outside("/home/user/large/file"), randomBytes(64 * mib));
  const download = files.start("GET", "/archive", { path: "large" }).end();
  await once(download, "response");
  const openFiles = async (): Promise<string[]> => {
    const directory = `/proc/${api().guest.pid}/fd`;
    const links = (await readdir(directory)).map(async (name) => readlink(`${directory}/${name}`).catch(() => ""));
    return (await Promise.all(links)).filter((link) => link.includes("/large/"));
  };
  await eventually(async () => expect(await openFiles()).toHaveLength(1));
  download.destroy();
  await eventually(async () => expect(await openFiles()).toEqual([]));
});

test("a tree of 256 MiB goes up from a program and down to one, and the server's memory stays as it is", async () => {
  const source = path.join(here, "huge");
  await mkdir(source);
  for (let at = 0; at < 8; at += 1) await writeFile(path.join(source, `${at}`), randomBytes(32 * mib));
  const before = process.memoryUsage.rss();
  const pack = spawn("tar", ["-C", source, "-cf", "-", "."], { stdio: ["ignore", "pipe", "inherit"] });
  const { request, answered } = files.startUpload("/archive", { path: "huge" });
  pack.stdout.pipe(request);
  expect((await answered).statusCode).toBe(200);
  const copy = path.join(here, "huge-copy");
  await mkdir(copy);
  const unpack = spawn("tar", ["-C", copy, "-xpf", "-"], { stdio: ["pipe", "inherit", "inherit"] });
  const download = files.start("GET", "/archive", { path: "huge" }).end();
  const [response] = (await once(download, "response")) as [http.IncomingMessage];
  response.pipe(unpack.stdin);
  expect(await once(unpack, "exit")).toEqual([0, null]);
  expect(process.memoryUsage.rss() - before).toBeLessThan(128 * mib);
  expect(await describeTree(copy)).toEqual(await describeTree(source));
});
