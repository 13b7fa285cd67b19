import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { chmod, readdir, readFile, readlink, rm, stat, symlink, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { connect } from "node:net";
import { gunzipSync, gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { observe, shell } from "./process-events.ts";
import { refusal, smallDiskBytes, startGuestAgent, type RequestBody, user, type GuestAgent } from "./harness.ts";

let agent: GuestAgent;
let outside: GuestAgent["outside"];
beforeAll(async () => {
  agent = await startGuestAgent();
  ({ outside } = agent);
});
afterAll(() => agent.stop());

const octets = { "Content-Type": "application/octet-stream" } as const;

function put(path: string, body: RequestBody, headers: Record<string, string> = {}, more = ""): Promise<Response> {
  const query = `path=${encodeURIComponent(path)}${more}`;
  return agent.fetch(`/files?${query}`, { method: "POST", body, headers: { ...octets, ...headers } });
}

function get(path: string, headers: Record<string, string> = {}): Promise<Response> {
  return agent.fetch(`/files?path=${encodeURIComponent(path)}`, { headers });
}

function read(path: string): Promise<string> {
  return readFile(outside(path), "utf8");
}

async function unfinished(directory: string): Promise<string[]> {
  return (await readdir(outside(directory))).filter((name) => name.startsWith(".wrenn-"));
}

/** A GET whose bytes are left as they come, which `fetch` does not do with gzip. */
async function rawGet(path: string, headers: Record<string, string>) {
  const asked = request(`${agent.url}/files?path=${encodeURIComponent(path)}`, { headers }).end();
  const [response] = await once(asked, "response");
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk);
  return { status: response.statusCode, headers: response.headers, body: Buffer.concat(chunks) };
}

describe("uploading", () => {
  test("a file belongs to the user, with its directories", async () => {
    const response = await put("new/dir/file.txt", "content");
    const path = `${user.home}/new/dir/file.txt`;
    expect(response.status).toBe(200);
    expect(await response.json()).toEqual([{ name: "file.txt", path, type: "file" }]);
    expect(await read(path)).toBe("content");
    expect(await stat(outside(path))).toMatchObject({ uid: user.uid, gid: user.gid, mode: 0o100_644 });
    expect(await stat(outside(`${user.home}/new`))).toMatchObject({ uid: user.uid });
  });

  test("as another user", async () => {
    expect(await (await put("mine", "x", {}, "&username=other")).json()).toEqual([
      { name: "mine", path: "/home/other/mine", type: "file" },
    ]);
    expect(await stat(outside("/home/other/mine"))).toMatchObject({ uid: 43_211 });
  });

  test("a file that is replaced keeps its mode", async () => {
    await put("script", "one");
    await chmod(outside(`${user.home}/script`), 0o750);
    await put("script", "two");
    expect((await stat(outside(`${user.home}/script`))).mode & 0o777).toBe(0o750);
    expect(await read(`${user.home}/script`)).toBe("two");
  });

  test("through a link, to what it leads to, there or not", async () => {
    await put("links/real", "old");
    await symlink("real", outside(`${user.home}/links/link`));
    await symlink("../links/later", outside(`${user.home}/links/dangling`));
    await put("links/link", "new");
    await put("links/dangling", "made");
    expect(await readlink(outside(`${user.home}/links/link`))).toBe("real");
    expect(await read(`${user.home}/links/real`)).toBe("new");
    expect(await read(`${user.home}/links/later`)).toBe("made");
  });

  test("nothing at all makes an empty file", async () => {
    expect((await put("empty", "")).status).toBe(200);
    expect((await stat(outside(`${user.home}/empty`))).size).toBe(0);
    const back = await get("empty");
    expect([back.status, back.headers.get("content-length"), await back.text()]).toEqual([200, "0", ""]);
  });

  test("compressed", async () => {
    const content = randomBytes(300_000).toString("hex");
    expect((await put("unzipped", gzipSync(content), { "Content-Encoding": "gzip" })).status).toBe(200);
    expect(await read(`${user.home}/unzipped`)).toBe(content);
    const members = Buffer.concat([gzipSync("one "), gzipSync("two")]);
    await put("unzipped", members, { "Content-Encoding": "gzip" });
    expect(await read(`${user.home}/unzipped`)).toBe("one two");
  });

  test("several files as a form, each named by its path", async () => {
    const form = new FormData();
    const large = randomBytes(400_000);
    form.append("other", "ignored");
    form.append("file", new Blob([large]), "forms/large \u00fc.bin");
    form.append("file", new Blob([""]), "/tmp/wrenn-form-empty");
    form.append("file", new Blob(["--x\r\n"]), "forms/small");
    const response = await agent.fetch("/files", { method: "POST", body: form });
    const home = `${user.home}/forms`;
    expect(await response.json()).toEqual([
      { name: "large \u00fc.bin", path: `${home}/large \u00fc.bin`, type: "file" },
      { name: "wrenn-form-empty", path: "/tmp/wrenn-form-empty", type: "file" },
      { name: "small", path: `${home}/small`, type: "file" },
    ]);
    expect(await readFile(outside(`${home}/large \u00fc.bin`))).toEqual(large);
    expect(await read(`${home}/small`)).toBe("--x\r\n");
    await agent.filesystem().remove({ path: "/tmp/wrenn-form-empty" });
  });

  test("one file as a form, named by the query", async () => {
    const form = new FormData();
    form.append("file", new Blob(["x"]), "ignored");
    const response = await agent.fetch("/files?path=from-query", { method: "POST", body: form });
    expect(await response.json()).toEqual([{ name: "from-query", path: `${user.home}/from-query`, type: "file" }]);
  });

  test("with metadata, which replaces what was there", async () => {
    const first = await put("tagged", "x", { "X-Metadata-Author": "A. B.", "X-Metadata-Kind": "note" });
    expect(await first.json()).toEqual([
      { name: "tagged", path: `${user.home}/tagged`, type: "file", metadata: { author: "A. B.", kind: "note" } },
    ]);
    expect((await agent.filesystem().stat({ path: "tagged" })).entry?.metadata).toEqual({
      author: "A. B.",
      kind: "note",
    });
    await put("tagged", "x", { "X-Metadata-Kind": "other" });
    expect((await agent.filesystem().stat({ path: "tagged" })).entry?.metadata).toEqual({ kind: "other" });
    await put("tagged", "x");
    expect((await agent.filesystem().stat({ path: "tagged" })).entry?.metadata).toEqual({});
  });

  test("and downloading, 256 MiB in little memory", async () => {
    const chunk = randomBytes(1024 * 1024);
    const sent = createHash("sha256");
    const chunks = 256;
    const body = new ReadableStream<Uint8Array>({
      pull(controller) {
        if (count === chunks) return controller.close();
        count += 1;
        sent.update(chunk);
        controller.enqueue(chunk);
      },
    });
    let count = 0;
    const uploading = { method: "POST", body, headers: octets, duplex: "half" } as const;
    expect((await agent.fetch("/files?path=big", uploading)).status).toBe(200);
    const received = createHash("sha256");
    const { body: download } = await get("big");
    for await (const part of download ?? []) received.update(part);
    expect(received.digest("hex")).toBe(sent.digest("hex"));
    const status = await readFile(`/proc/${agent.pid}/status`, "utf8");
    expect(Number(/VmHWM:\s+(\d+)/.exec(status)?.[1])).toBeLessThan(12 * 1024);
    await agent.filesystem().remove({ path: "big" });
  });
});

describe("an upload that fails leaves nothing", () => {
  test("when the disk is full", async () => {
    await writeFile(outside("/mnt/kept"), "kept");
    const response = await put("/mnt/kept", Buffer.alloc(2 * smallDiskBytes));
    expect(response.status).toBe(507);
    expect(await response.json()).toEqual({ code: 507, message: "not enough disk space available" });
    expect(await readdir(outside("/mnt"))).toEqual(["kept"]);
    expect(await read("/mnt/kept")).toBe("kept");
  });

  test("when the client leaves", async () => {
    await put("left/kept", "kept");
    const socket = connect(agent.port, "127.0.0.1");
    await once(socket, "connect");
    const head = ["POST /files?path=left/kept HTTP/1.1", "Host: x", "Content-Type: application/octet-stream"];
    socket.write([...head, "Content-Length: 10000000", "", "x".repeat(500_000)].join("\r\n"));
    await expect.poll(() => unfinished(`${user.home}/left`)).toHaveLength(1);
    socket.destroy();
    await expect.poll(() => unfinished(`${user.home}/left`)).toHaveLength(0);
    expect(await read(`${user.home}/left/kept`)).toBe("kept");
  });

  test("when the form is cut short", async () => {
    const body = '--b\r\nContent-Disposition: form-data; name="file"; filename="cut/short"\r\n\r\nhalf';
    const headers = { "Content-Type": "multipart/form-data; boundary=b" };
    const response = await agent.fetch("/files", { method: "POST", body, headers });
    expect(await refusal(response)).toEqual({
      status: 400,
      code: 400,
      message: "error parsing multipart form: the form ends before its closing boundary",
    });
    expect(await readdir(outside(`${user.home}/cut`))).toEqual([]);
  });

  test("when compressed data is cut short or is none", async () => {
    for (const body of [gzipSync(randomBytes(1000)).subarray(0, 900), Buffer.from("plain")]) {
      const response = await put("broken.gz", body, { "Content-Encoding": "gzip" });
      const { status, message } = await refusal(response);
      expect(status).toBe(400);
      expect(message).toContain("error decompressing request body");
    }
    expect(await unfinished(user.home)).toEqual([]);
  });
});

describe("an upload is refused", () => {
  beforeAll(async () => {
    await symlink("/home/no/where", outside("/home/nowhere"));
    const mount = "mkdir /home/readonly && mount -t tmpfs -o ro tmpfs /home/readonly";
    const { end } = await observe(agent.process({ user: "root" }).start(shell(mount)));
    if (end?.exitCode !== 0) throw new Error("a read-only file system could not be mounted");
  });

  test.each<[string, () => Promise<Response>, number, string]>([
    ["over a directory", () => put("/home", "x"), 400, "path is a directory: /home"],
    ["over a device", () => put("/dev/null", "x"), 400, "path is not a regular file: /dev/null"],
    ["below a file", () => put("/etc/passwd/x", "x"), 400, "path is a file: /etc/passwd"],
    [
      "without a path",
      () => agent.fetch("/files", { method: "POST", body: "x", headers: octets }),
      400,
      "path query parameter is required",
    ],
    ["below a missing directory of a link", () => put("/home/nowhere", "x"), 404, "No such file or directory"],
    ["to a file system that is read-only", () => put("/home/readonly/x", "x"), 403, "Read-only file system"],
    ["with a name that is too long", () => put("x".repeat(256), "x"), 400, "File name too long"],
    ["of a stranger", () => put("x", "x", {}, "&username=stranger"), 401, "invalid username: 'stranger'"],
    [
      "of another type",
      () => put("x", "x", { "Content-Type": "text/plain" }),
      400,
      "unsupported content type: text/plain",
    ],
    ["without a boundary", () => put("x", "x", { "Content-Type": "multipart/form-data" }), 400, "names no boundary"],
    ["in another coding", () => put("x", "x", { "Content-Encoding": "br" }), 400, "unsupported Content-Encoding: br"],
    [
      "with metadata that is too large",
      () => put("x", "x", { "X-Metadata-K": "v".repeat(4096) }),
      400,
      "invalid metadata",
    ],
    ["with metadata that is not ASCII", () => put("x", "x", { "X-Metadata-K": "\u00e9" }), 400, "invalid metadata"],
  ])("%s", async (_, action, status, message) => {
    const response = await action();
    const expected: unknown = { status, code: status, message: expect.stringContaining(message) };
    expect(await refusal(response)).toEqual(expected);
  });

  test("of two files to one path, keeping the first", async () => {
    const form = new FormData();
    form.append("file", new Blob(["first"]), "twice");
    form.append("file", new Blob(["second"]), "./twice");
    const response = await agent.fetch("/files", { method: "POST", body: form });
    expect(response.status).toBe(400);
    expect(await read(`${user.home}/twice`)).toBe("first");
  });
});

describe("downloading", () => {
  const content = "0123456789";
  beforeAll(async () => {
    await put("digits.txt", content);
  });

  test("a file, with what caches need", async () => {
    const response = await get("digits.txt");
    expect(await response.text()).toBe(content);
    expect(Object.fromEntries(response.headers)).toMatchObject({
      "accept-ranges": "bytes",
      "content-disposition": "inline; filename=digits.txt",
      "content-length": "10",
      "content-type": "application/octet-stream",
      vary: "Accept-Encoding",
    });
    const etag = response.headers.get("etag") ?? "";
    const modified = response.headers.get("last-modified") ?? "";
    expect((await get("digits.txt", { "If-None-Match": etag })).status).toBe(304);
    expect((await get("digits.txt", { "If-Modified-Since": modified })).status).toBe(304);
    expect((await get("digits.txt", { "If-None-Match": '"other"' })).status).toBe(200);
    await put("digits.txt", content);
    expect((await get("digits.txt", { "If-None-Match": etag })).status).toBe(200);
  });

  test("only its head", async () => {
    const response = await agent.fetch("/files?path=digits.txt", { method: "HEAD" });
    expect([response.status, response.headers.get("content-length"), await response.text()]).toEqual([200, "10", ""]);
  });

  test.each([
    ["bytes=2-4", 206, "234", "bytes 2-4/10"],
    ["bytes=7-", 206, "789", "bytes 7-9/10"],
    ["bytes=-2", 206, "89", "bytes 8-9/10"],
    ["bytes=0-99", 206, content, "bytes 0-9/10"],
    ["bytes=0-1,3-4", 200, content, null],
    ["nonsense", 200, content, null],
  ])("the range %s", async (range, status, body, contentRange) => {
    const response = await get("digits.txt", { Range: range });
    expect([response.status, await response.text(), response.headers.get("content-range")]).toEqual([
      status,
      body,
      contentRange,
    ]);
  });

  test("a range behind the end is an error, one of a changed file the whole", async () => {
    const behind = await get("digits.txt", { Range: "bytes=10-" });
    expect([behind.status, behind.headers.get("content-range")]).toEqual([416, "bytes */10"]);
    const changed = await get("digits.txt", { Range: "bytes=1-2", "If-Range": '"older"' });
    expect([changed.status, await changed.text()]).toEqual([200, content]);
  });

  test("compressed, for who asks for just that", async () => {
    await put("compressible", "x".repeat(1_000_000));
    const zipped = await rawGet("compressible", { "Accept-Encoding": "gzip" });
    expect(zipped.headers["content-encoding"]).toBe("gzip");
    expect(zipped.body.length).toBeLessThan(20_000);
    expect(gunzipSync(zipped.body).toString()).toBe("x".repeat(1_000_000));
    const plain = await rawGet("compressible", { "Accept-Encoding": "gzip, deflate" });
    expect(plain.headers["content-encoding"]).toBeUndefined();
    expect((await rawGet("compressible", { "Accept-Encoding": "identity;q=0, br" })).status).toBe(406);
    expect((await rawGet("compressible", { "Accept-Encoding": "identity;q=0, gzip", Range: "bytes=0-1" })).status).toBe(
      406,
    );
  });

  test("what the kernel makes up as it is read", async () => {
    expect(await (await get("/proc/self/comm")).text()).toBe("wrenn-guest\n");
  });

  test("a file with an odd name", async () => {
    await put('\u00fc "x"', "odd");
    const response = await get('\u00fc "x"');
    expect(response.headers.get("content-disposition")).toBe("inline; filename*=utf-8''%C3%BC%20%22x%22");
    expect(await response.text()).toBe("odd");
  });

  test.each([
    ["nothing", "/nothing", 404, "path '/nothing' does not exist"],
    ["below a file", "/etc/passwd/x", 400, "Not a directory"],
    ["a name that is too long", `/${"x".repeat(256)}`, 400, "File name too long"],
    ["a link to itself", "/home/loop", 400, "Too many levels of symbolic links"],
    ["a directory", "/home", 400, "path '/home' is a directory"],
    ["a device", "/dev/zero", 400, "path '/dev/zero' is not a regular file"],
    ["another's home by ~", "~other/x", 400, "cannot expand user-specific home directory in '~other/x'"],
  ])("%s is refused", async (_, path, status, message) => {
    await rm(outside("/home/loop"), { force: true });
    await symlink("loop", outside("/home/loop"));
    const response = await get(path);
    const expected: unknown = { status, code: status, message: expect.stringContaining(message) };
    expect(await refusal(response)).toEqual(expected);
  });

  test("a client that leaves is noticed", async () => {
    await put("endless", Buffer.alloc(32 * 1024 * 1024));
    const socket = connect(agent.port, "127.0.0.1");
    socket.write("GET /files?path=endless HTTP/1.1\r\nHost: x\r\n\r\n");
    await once(socket, "data");
    socket.pause();
    const open = async () =>
      (
        await Promise.all(
          (await readdir(`/proc/${agent.pid}/fd`)).map((fd) => readlink(`/proc/${agent.pid}/fd/${fd}`).catch(() => "")),
        )
      ).filter((file) => file.endsWith("/endless"));
    expect(await open()).toHaveLength(1);
    socket.destroy();
    await expect.poll(open).toHaveLength(0);
  });
});

describe("composing", () => {
  const compose = (body: unknown) =>
    agent.fetch("/files/compose", {
      method: "POST",
      body: JSON.stringify(body),
      headers: { "Content-Type": "application/json" },
    });

  test("joins files in order and removes them", async () => {
    for (const part of ["a", "b", "c"]) await put(`parts/${part}`, part.repeat(100_000));
    const response = await compose({
      source_paths: ["parts/b", "parts/a", "parts/c"],
      destination: "whole/file",
      username: "user",
    });
    expect(await response.json()).toEqual({ name: "file", path: `${user.home}/whole/file`, type: "file" });
    expect(await read(`${user.home}/whole/file`)).toBe(["b", "a", "c"].map((part) => part.repeat(100_000)).join(""));
    expect(await stat(outside(`${user.home}/whole/file`))).toMatchObject({ uid: user.uid });
    expect(await readdir(outside(`${user.home}/parts`))).toEqual([]);
  });

  test.each<[string, unknown, number, string]>([
    ["nothing", {}, 400, "source_paths must not be empty"],
    ["to nowhere", { source_paths: ["x"] }, 400, "destination is required"],
    ["what is missing", { source_paths: ["/missing"], destination: "y" }, 404, "source file not found: /missing"],
    ["a directory", { source_paths: ["/home"], destination: "y" }, 400, "source path is not a regular file: /home"],
    ["into itself", { source_paths: ["same"], destination: "same" }, 400, "cannot be the same as destination"],
    [
      "for a stranger",
      { source_paths: ["x"], destination: "y", username: "stranger" },
      401,
      "invalid username: 'stranger'",
    ],
    ["what is no JSON object", "text", 400, "invalid request body"],
  ])("%s is refused", async (_, body, status, message) => {
    await put("same", "x");
    const response = await compose(body);
    const expected: unknown = { status, code: status, message: expect.stringContaining(message) };
    expect(await refusal(response)).toEqual(expected);
    expect(await read(`${user.home}/same`)).toBe("x");
  });

  test("keeps the parts when the disk is full", async () => {
    await put("part", Buffer.alloc(2 * smallDiskBytes));
    expect((await compose({ source_paths: ["part"], destination: "/mnt/whole" })).status).toBe(507);
    expect(await unfinished("/mnt")).toEqual([]);
    expect((await stat(outside(`${user.home}/part`))).size).toBe(2 * smallDiskBytes);
  });
});
