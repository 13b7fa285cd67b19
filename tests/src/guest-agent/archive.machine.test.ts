/** Whole directories as tar, both ways, with GNU tar at the other end. */
import { execFile, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  symlink,
  truncate,
  utimes,
  writeFile,
} from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { buffer } from "node:stream/consumers";
import { promisify } from "node:util";
import { processProto } from "@wrenn/contract";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { refusal, smallDiskBytes, startGuestAgent, type RequestBody, user, type GuestAgent } from "./harness.ts";
import { byPid, observe, ProcessEvents, shell } from "./process-events.ts";

const run = promisify(execFile);
const mib = 1024 * 1024;

let agent: GuestAgent;
let outside: GuestAgent["outside"];
let scratch: string;
beforeAll(async () => {
  agent = await startGuestAgent();
  ({ outside } = agent);
});
afterAll(() => agent.stop());
beforeEach(async () => {
  scratch = await mkdtemp(path.join(tmpdir(), "wrenn-archive-test-"));
});
afterEach(() => rm(scratch, { recursive: true, force: true }));

function query(directory: string, more = ""): string {
  return `/files/archive?path=${encodeURIComponent(directory)}${more}`;
}

function download(directory: string, more = ""): Promise<Response> {
  return agent.fetch(query(directory, more));
}

function upload(directory: string, body: RequestBody, headers: Record<string, string> = {}, more = "") {
  return agent.fetch(query(directory, more), {
    method: "POST",
    body,
    headers: { "Content-Type": "application/x-tar", ...headers },
  });
}

/** What GNU tar makes of a directory. */
async function tar(directory: string, ...options: string[]): Promise<Buffer<ArrayBuffer>> {
  const { stdout } = await run("tar", ["-C", directory, "-cf", "-", ...options, "."], {
    encoding: "buffer",
    maxBuffer: 1024 * mib,
  });
  return Buffer.from(stdout);
}

/** What GNU tar makes of an archive, complaints being failures. */
async function untar(archive: AsyncIterable<Uint8Array>, directory: string): Promise<void> {
  await mkdir(directory, { recursive: true });
  const child = spawn("tar", ["-C", directory, "-xpf", "-"], { stdio: ["pipe", "inherit", "pipe"] });
  const complaints = buffer(child.stderr);
  const ended = once(child, "exit");
  for await (const bytes of archive) {
    if (!child.stdin.write(bytes)) await once(child.stdin, "drain");
  }
  child.stdin.end();
  expect(await ended).toEqual([0, null]);
  expect((await complaints).toString()).toBe("");
}

function bodyOf(response: Response): AsyncIterable<Uint8Array> {
  if (response.body === null) throw new Error("an answer without a body");
  return response.body;
}

/** Names of everything in a tree. Links are not followed, as the recursion of Node 20 itself does. */
async function namesIn(directory: string, above = ""): Promise<string[]> {
  const entries = await readdir(path.join(directory, above), { withFileTypes: true });
  const names = entries.map(async (entry) => {
    const name = path.join(above, entry.name);
    return [name, ...(entry.isDirectory() ? await namesIn(directory, name) : [])];
  });
  return (await Promise.all(names)).flat().sort();
}

/** Names, kinds, modes, times and contents of a tree. */
async function describeTree(directory: string): Promise<string[]> {
  const lines = (await namesIn(directory)).map(async (name) => {
    const file = path.join(directory, name);
    const entry = await lstat(file);
    const mode = (entry.mode & 0o7777).toString(8);
    const time = Math.floor(entry.mtimeMs / 1000);
    if (entry.isSymbolicLink()) return `${name} -> ${await readlink(file)}`;
    if (entry.isDirectory()) return `${name}/ ${mode} ${time}`;
    const hash = createHash("sha256")
      .update(await readFile(file))
      .digest("hex");
    return `${name} ${mode} ${time} ${entry.size} ${hash}`;
  });
  return Promise.all(lines);
}

async function makeTree(directory: string): Promise<void> {
  const deep = path.join(directory, "deep", "d".repeat(120), "e".repeat(120));
  await mkdir(deep, { recursive: true });
  await mkdir(path.join(directory, "empty"), { mode: 0o700 });
  await writeFile(path.join(deep, "n".repeat(200)), "deep");
  await writeFile(path.join(directory, "script"), "#!/bin/sh\n", { mode: 0o755 });
  await writeFile(path.join(directory, "\u00fc and \n more"), "odd name");
  await writeFile(path.join(directory, "large"), Buffer.alloc(3 * mib + 17, "0123456789"));
  await symlink("script", path.join(directory, "link"));
  await symlink("/nowhere/".repeat(40), path.join(directory, "long-link"));
  await symlink("../../..", path.join(directory, "up"));
  for (const name of ["script", "empty", "deep"]) await utimes(path.join(directory, name), 1, 1_000_000_000);
}

function blocks(file: string): Promise<number> {
  return stat(file).then((entry) => entry.blocks * 512);
}

describe("downloading a directory", () => {
  test("gives what GNU tar extracts to the same", async () => {
    const source = outside(`${user.home}/tree`);
    await makeTree(source);
    const response = await download("tree");
    expect([response.status, response.headers.get("content-type")]).toEqual([200, "application/x-tar"]);
    await untar(bodyOf(response), scratch);
    expect(await describeTree(scratch)).toEqual(await describeTree(source));
  });

  test("gives one file as an archive of one", async () => {
    await writeFile(outside(`${user.home}/single`), "alone");
    await untar(bodyOf(await download(`${user.home}/single`)), scratch);
    expect(await readFile(path.join(scratch, "single"), "utf8")).toBe("alone");
  });

  test("gives an empty directory as an archive of nothing", async () => {
    await mkdir(outside(`${user.home}/void`));
    const bytes = Buffer.from(await (await download("void")).arrayBuffer());
    expect(bytes.equals(Buffer.alloc(1024))).toBe(true);
  });

  test("leaves out sockets, pipes and devices, and what the kernel makes up", async () => {
    const make =
      "mkdir -p /home/odd/mounted && cd /home/odd && echo x >file && mkfifo pipe && mknod null c 1 3 && mount -t proc proc mounted";
    expect((await observe(agent.process({ user: "root" }).start(shell(make)))).end?.exitCode).toBe(0);
    await untar(bodyOf(await download("/home/odd")), scratch);
    expect(await namesIn(scratch)).toEqual(["file", "mounted"]);
  });

  test("keeps holes for who asks for it, and sizes beyond 8 GiB", async () => {
    const size = 10 * 1024 * mib;
    const source = outside(`${user.home}/holes/file`);
    await mkdir(path.dirname(source));
    const file = await open(source, "w");
    await file.write(Buffer.from("middle"), 0, 6, size / 2);
    await file.truncate(size);
    await file.close();
    const response = await download("holes", "&sparse=true");
    let received = 0;
    const counted = async function* () {
      for await (const bytes of bodyOf(response)) {
        received += bytes.length;
        yield bytes;
      }
    };
    await untar(counted(), scratch);
    expect(received).toBeLessThan(mib);
    const copy = path.join(scratch, "file");
    expect((await stat(copy)).size).toBe(size);
    expect(await blocks(copy)).toBeLessThan(mib);
    const back = await open(copy);
    expect((await back.read(Buffer.alloc(6), 0, 6, size / 2)).buffer.toString()).toBe("middle");
    await back.close();
  });

  test("gives holes as zeros otherwise", async () => {
    const source = outside(`${user.home}/zeros`);
    await mkdir(source);
    await writeFile(path.join(source, "file"), "x");
    await truncate(path.join(source, "file"), 5 * mib);
    const response = await download("zeros");
    await untar(bodyOf(response), scratch);
    expect(await describeTree(scratch)).toEqual(await describeTree(source));
  });

  test("goes on when files appear, vanish and change meanwhile", async () => {
    const source = outside(`${user.home}/busy`);
    await mkdir(source);
    const churn =
      "cd ~/busy; i=0; while :; do i=$((i+1)); f=f$((i % 50)); head -c $((i * 997 % 300000)) /dev/zero >$f; rm -rf d$((i % 7)) f$(((i + 25) % 50)); mkdir d$((i % 7)); : >d$((i % 7))/x; done";
    const client = agent.process({ user: "root" });
    const events = new ProcessEvents(client.start(shell(`HOME=${user.home}; ${churn}`)));
    const { pid } = await events.until((seen) => seen.pid !== 0);
    await expect.poll(async () => (await readdir(source)).length).toBeGreaterThan(5);
    for (let round = 0; round < 20; round += 1) {
      await untar(bodyOf(await download("busy")), path.join(scratch, `${round}`));
    }
    await client.sendSignal({ process: byPid(pid), signal: processProto.Signal.SIGKILL });
    expect((await events.toEnd()).end?.exitCode).toBe(137);
  });

  test("holds its bytes back from a client that reads slowly, and ends with one that leaves", async () => {
    const source = outside(`${user.home}/slow`);
    await mkdir(source);
    for (let index = 0; index < 8; index += 1) await writeFile(path.join(source, `${index}`), Buffer.alloc(16 * mib));
    const socket = connect(agent.port, "127.0.0.1");
    socket.write(`GET ${query("slow")} HTTP/1.1\r\nHost: x\r\n\r\n`);
    await once(socket, "data");
    socket.pause();
    const openFiles = async () => {
      const descriptors = await readdir(`/proc/${agent.pid}/fd`);
      const files = await Promise.all(descriptors.map((fd) => readlink(`/proc/${agent.pid}/fd/${fd}`).catch(() => "")));
      return files.filter((file) => file.includes(`${user.home}/slow`));
    };
    expect((await openFiles()).length).toBeGreaterThan(0);
    const status = await readFile(`/proc/${agent.pid}/status`, "utf8");
    expect(Number(/VmHWM:\s+(\d+)/.exec(status)?.[1])).toBeLessThan(16 * 1024);
    socket.destroy();
    await expect.poll(openFiles).toEqual([]);
  });

  test("breaks off when it cannot go on, so that nobody takes a part for the whole", async () => {
    const source = outside(`${user.home}/broken`);
    await mkdir(source);
    for (let index = 0; index < 64; index += 1) await writeFile(path.join(source, `${index}`), Buffer.alloc(mib));
    const response = await download("broken");
    const reader = bodyOf(response)[Symbol.asyncIterator]();
    await reader.next();
    // From now on the agent can open no further file.
    const limit = (soft: string) => run("prlimit", ["--pid", `${agent.pid}`, `--nofile=${soft.trim()}:`]);
    const { stdout: before } = await run("prlimit", [
      "--pid",
      `${agent.pid}`,
      "--nofile",
      "--noheadings",
      "-o",
      "SOFT",
    ]);
    await limit("3");
    const toEnd = async () => {
      while ((await reader.next()).done !== true);
    };
    try {
      await expect(toEnd()).rejects.toThrow("terminated");
    } finally {
      await limit(before);
    }
    expect((await agent.fetch("/health")).status).toBe(204);
  });

  test.each<[string, () => Promise<Response>, number, string]>([
    ["of nothing", () => download("/missing"), 404, "path '/missing' does not exist"],
    ["below a file", () => download("/etc/passwd/x"), 400, "Not a directory"],
    ["of a device", () => download("/dev/null"), 400, "neither a directory nor a file"],
    ["with a name that is too long", () => download("x".repeat(256)), 400, "File name too long"],
    ["without a path", () => agent.fetch("/files/archive"), 400, "path query parameter is required"],
    ["for a stranger", () => download("tree", "&username=stranger"), 401, "invalid username: 'stranger'"],
    ["by another method", () => agent.fetch(query("tree"), { method: "PUT" }), 405, "use GET, POST here"],
  ])("is refused %s", async (_, action, status, message) => {
    const expected: unknown = { status, code: status, message: expect.stringContaining(message) };
    expect(await refusal(await action())).toEqual(expected);
  });
});

describe("uploading a directory", () => {
  test.each(["gnu", "posix", "ustar"])("extracts what GNU tar wrote in the format %s", async (format) => {
    await makeTree(path.join(scratch, "tree"));
    if (format === "ustar") {
      // What has no room in its fields.
      await rm(path.join(scratch, "tree/long-link"));
      await rm(path.join(scratch, "tree/deep"), { recursive: true });
    }
    const target = `${user.home}/into/${format}`;
    const response = await upload(target, await tar(path.join(scratch, "tree"), `--format=${format}`));
    expect(response.status).toBe(200);
    const tree = await describeTree(path.join(scratch, "tree"));
    expect(await response.json()).toMatchObject({ path: target, entries: tree.length, skipped: 0 });
    expect(await describeTree(outside(target))).toEqual(tree);
  });

  test("hands everything to the user, made with the directories above", async () => {
    await makeTree(path.join(scratch, "tree"));
    await upload(
      "new/dir",
      await tar(path.join(scratch, "tree"), "--owner=4711", "--group=4711"),
      {},
      "&username=other",
    );
    const made = outside("/home/other/new");
    for (const name of ["", ...(await namesIn(made))]) {
      expect(await lstat(path.join(made, name))).toMatchObject({ uid: 43_211, gid: 43_211 });
    }
  });

  test("leaves what is there as it is, but for files of the same name, which are replaced whole", async () => {
    const target = outside(`${user.home}/there`);
    await mkdir(path.join(target, "kept"), { recursive: true });
    await chmod(path.join(target, "kept"), 0o711);
    await writeFile(path.join(target, "kept/other"), "other");
    await writeFile(path.join(target, "same"), "a longer old content", { mode: 0o600 });
    await mkdir(path.join(scratch, "tree/kept"), { recursive: true, mode: 0o777 });
    await writeFile(path.join(scratch, "tree/same"), "new");
    await chmod(path.join(scratch, "tree/same"), 0o4751);
    await upload("there", await tar(path.join(scratch, "tree")));
    expect(await describeTree(target)).toEqual([
      expect.stringMatching(/^kept\/ 711 /),
      expect.stringMatching(/^kept\/other 644 .* 5 /),
      // Without the bit that would run it as somebody.
      expect.stringMatching(/^same 751 .* 3 /),
    ]);
  });

  test("keeps holes, of GNU's format and of the POSIX one", async () => {
    const source = path.join(scratch, "tree/file");
    await mkdir(path.dirname(source));
    const file = await open(source, "w");
    await file.write(Buffer.from("middle"), 0, 6, 50 * mib);
    await file.truncate(100 * mib + 1);
    await file.close();
    for (const options of [["--sparse", "--format=gnu"], ["--sparse", "--format=posix"], []]) {
      const response = await upload("holey", await tar(path.dirname(source), ...options));
      expect(await response.json()).toEqual({
        path: `${user.home}/holey`,
        entries: 1,
        bytes: 100 * mib + 1,
        skipped: 0,
      });
      const copy = outside(`${user.home}/holey/file`);
      expect(await describeTree(path.dirname(copy))).toEqual(await describeTree(path.dirname(source)));
      expect(await blocks(copy)).toBeLessThan(mib);
    }
  });

  test("streams: a directory of 400 MiB goes up and comes down in little memory", async () => {
    const files = 8;
    const fresh = await startGuestAgent();
    try {
      const content = Buffer.alloc(50 * mib, "x");
      const header = (name: string) => {
        const block = Buffer.alloc(512);
        block.write(name, 0);
        block.write("0000644", 100);
        block.write(content.length.toString(8).padStart(11, "0"), 124);
        block.write("        ", 148);
        block.write("0", 156);
        block.write("ustar\u000000", 257);
        const sum = block.reduce((total, byte) => total + byte, 0);
        block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
        return block;
      };
      const parts = function* () {
        for (let index = 0; index < files; index += 1) {
          yield header(`file-${index}`);
          for (let at = 0; at < content.length; at += mib) yield content.subarray(at, at + mib);
        }
        yield Buffer.alloc(1024);
      };
      const uploading = { method: "POST", body: ReadableStream.from(parts()), duplex: "half" } as const;
      const response = await fresh.fetch("/files/archive?path=big", uploading);
      expect(await response.json()).toMatchObject({ entries: files, bytes: files * content.length });
      const back = await fresh.fetch("/files/archive?path=big");
      let received = 0;
      for await (const bytes of bodyOf(back)) received += bytes.length;
      expect(received).toBe(files * (512 + content.length) + 1024);
      const status = await readFile(`/proc/${fresh.pid}/status`, "utf8");
      expect(Number(/VmHWM:\s+(\d+)/.exec(status)?.[1])).toBeLessThan(12 * 1024);
    } finally {
      await fresh.stop();
    }
  });

  test("skips devices and pipes, and says so", async () => {
    await mkdir(path.join(scratch, "tree"));
    await run("mkfifo", [path.join(scratch, "tree/pipe")]);
    await run("mknod", [path.join(scratch, "tree/null"), "c", "1", "3"]);
    await writeFile(path.join(scratch, "tree/file"), "x");
    const response = await upload("special", await tar(path.join(scratch, "tree")));
    expect(await response.json()).toMatchObject({ entries: 1, bytes: 1, skipped: 2 });
    expect(await readdir(outside(`${user.home}/special`))).toEqual(["file"]);
  });

  test.each<[string, string[], RegExp]>([
    ["by its name", ["--transform=s,^./,../,"], /leads out of the directory/],
    ["through a link", ["--transform=s,^./through/,through-link/,"], /leads out of the directory/],
    ["by a link to a file", ["--transform=s,^./hard.*,../../etc/passwd,RS"], /leads out of the directory/],
  ])("never leads out of it: %s", async (_, options, reason) => {
    const tree = path.join(scratch, "tree");
    await mkdir(path.join(tree, "through"), { recursive: true });
    await writeFile(path.join(tree, "through/file"), "x");
    await writeFile(path.join(tree, "hard"), "x");
    await run("ln", [path.join(tree, "hard"), path.join(tree, "hard2")]);
    const target = outside(`${user.home}/caged`);
    await rm(target, { recursive: true, force: true });
    await mkdir(target);
    await symlink("/home/other", path.join(target, "through-link"));
    const before = [await describeTree(outside("/home/other")), await readdir(outside(user.home))];
    const response = await upload("caged", await tar(tree, "-P", ...options));
    const { status, message } = await refusal(response);
    expect(status).toBe(400);
    expect(message).toMatch(reason);
    expect([await describeTree(outside("/home/other")), await readdir(outside(user.home))]).toEqual(before);
  });

  test("fails when the disk is full, and leaves no part of a file", async () => {
    await mkdir(path.join(scratch, "tree"));
    await writeFile(path.join(scratch, "tree/a"), "small");
    await writeFile(path.join(scratch, "tree/b"), Buffer.alloc(2 * smallDiskBytes, "x"));
    const archive = await tar(path.join(scratch, "tree"), "--sort=name");
    const response = await upload("/mnt/into", archive);
    expect(await refusal(response)).toEqual({ status: 507, code: 507, message: "not enough disk space available" });
    expect(await readdir(outside("/mnt/into"))).toEqual(["a"]);
    await rm(outside("/mnt/into"), { recursive: true });
  });

  test("that is cut short says so, and leaves no part of a file", async () => {
    await mkdir(path.join(scratch, "tree"));
    await writeFile(path.join(scratch, "tree/file"), Buffer.alloc(mib, "x"));
    const archive = await tar(path.join(scratch, "tree"));
    for (const length of [0, 100, 512 * 1024, mib + 1024]) {
      await rm(outside(`${user.home}/cut-archive`), { recursive: true, force: true });
      const { status, message } = await refusal(await upload("cut-archive", archive.subarray(0, length)));
      expect([status, message]).toEqual([
        400,
        expect.stringMatching(/^the archive cannot be read: it is (cut short|empty)$/),
      ]);
      const left = await readdir(outside(`${user.home}/cut-archive`));
      expect(left).toEqual(length > mib ? ["file"] : []);
    }
  });

  test("ends with a client that leaves, and leaves no part of a file", async () => {
    await mkdir(path.join(scratch, "tree"));
    await writeFile(path.join(scratch, "tree/file"), Buffer.alloc(4 * mib, "x"));
    const archive = await tar(path.join(scratch, "tree"));
    const socket = connect(agent.port, "127.0.0.1");
    await once(socket, "connect");
    socket.write(`POST ${query("left-archive")} HTTP/1.1\r\nHost: x\r\nContent-Length: ${archive.length}\r\n\r\n`);
    socket.write(archive.subarray(0, 2 * mib));
    const names = () => readdir(outside(`${user.home}/left-archive`)).catch(() => []);
    await expect.poll(names).toEqual([expect.stringMatching(/^\.wrenn-/)]);
    socket.destroy();
    await expect.poll(names).toEqual([]);
  });

  test.each<[string, () => Promise<Response>, number, string]>([
    [
      "that is no archive",
      () => upload("bad", "x".repeat(2000)),
      400,
      "a header is damaged, or this is no tar archive",
    ],
    [
      "of another type",
      () => upload("bad", "x", { "Content-Type": "text/plain" }),
      400,
      "unsupported content type: text/plain",
    ],
    [
      "that is compressed",
      () => upload("bad", "x", { "Content-Encoding": "gzip" }),
      400,
      "unsupported Content-Encoding: gzip",
    ],
    ["into a file", () => upload("/etc/passwd", Buffer.alloc(1024)), 400, "path is a file: /etc/passwd"],
    ["below a file", () => upload("/etc/passwd/x", Buffer.alloc(1024)), 400, "path is a file: /etc/passwd"],
    ["to a kernel's file system", () => upload("/proc/x", Buffer.alloc(1024)), 404, "/proc/x"],
    [
      "without a path",
      () => agent.fetch("/files/archive", { method: "POST", body: "x" }),
      400,
      "path query parameter is required",
    ],
    ["for a stranger", () => upload("bad", "x", {}, "&username=stranger"), 401, "invalid username: 'stranger'"],
  ])("is refused %s", async (_, action, status, message) => {
    const expected: unknown = { status, code: status, message: expect.stringContaining(message) };
    expect(await refusal(await action())).toEqual(expected);
  });
});
