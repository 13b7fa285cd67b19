import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { chmod, mkdir, readdir, readFile, readlink, rm, stat, symlink, truncate, writeFile } from "node:fs/promises";
import http from "node:http";
import net from "node:net";
import { Readable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { eventually } from "@wrenn/control-plane/testing";
import { describe, expect, test } from "vitest";
import { smallDiskBytes, user } from "../guest-agent/harness.ts";
import { useApiServer } from "../harness/api-server.ts";
import { FilesApi, refusalOf, refused } from "../harness/files-api.ts";

const mib = 1_048_576;

const api = useApiServer();
const files = new FilesApi(api);
const { outside } = files;

function sha256(bytes: Uint8Array | string): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** As `send` of an upload does it, the whole body of an answer. */
async function textOf(response: http.IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

/** Where the guest agent has got to in the files of a directory that it has open. */
async function openIn(directory: string): Promise<number[]> {
  const { pid } = api().guest;
  const positions: number[] = [];
  for (const descriptor of await readdir(`/proc/${pid}/fd`)) {
    try {
      if (!(await readlink(`/proc/${pid}/fd/${descriptor}`)).includes(directory)) continue;
      const info = await readFile(`/proc/${pid}/fdinfo/${descriptor}`, "utf8");
      positions.push(Number(/^pos:\s+(\d+)/m.exec(info)?.[1]));
    } catch {
      // Closed while we looked.
    }
  }
  return positions;
}

/** Waits until a number no longer changes, and gives it. */
async function settled(look: () => Promise<number> | number): Promise<number> {
  return eventually(async () => {
    const before = await look();
    await delay(300);
    const after = await look();
    if (after !== before) throw new Error("still changing");
    return after;
  });
}

describe("a round trip", () => {
  test.each([0, 1, 65_535, 65_536, 65_537, 3 * mib + 1])("keeps every one of %i bytes", async (size) => {
    const bytes = randomBytes(size);
    const put = await files.put(`round/${size}`, bytes);
    expect([put.status, await put.json()]).toMatchObject([201, { size, type: "file", owner: user.name, mode: 0o644 }]);
    const got = await files.get(`round/${size}`);
    expect([got.status, got.headers.get("content-length")]).toEqual([200, String(size)]);
    expect(Buffer.from(await got.arrayBuffer()).equals(bytes)).toBe(true);
  });

  test("goes without a length, in pieces as they come", async () => {
    const { request, answered } = files.startUpload("", { path: "pieces" });
    for (const piece of ["one ", "two ", "three"]) {
      request.write(piece);
      await delay(20);
    }
    request.end();
    expect((await answered).statusCode).toBe(201);
    expect(await (await files.get("pieces")).text()).toBe("one two three");
  });

  test.each([
    ["application/json"],
    ["application/x-www-form-urlencoded"],
    ["multipart/form-data; boundary=x"],
    ["text/html; charset=utf-16"],
    ["nonsense"],
    [undefined],
  ])("does not care about the content type %s, nor about the size of other bodies", async (type) => {
    const bytes = randomBytes(2 * mib);
    const { request, answered } = files.startUpload(
      "",
      { path: "typed" },
      type === undefined ? {} : { "Content-Type": type },
    );
    request.end(bytes);
    expect([200, 201]).toContain((await answered).statusCode);
    expect(sha256(await readFile(outside("/home/user/typed")))).toBe(sha256(bytes));
  });

  test("with no body at all makes an empty file", async () => {
    for (const headers of [{ "Content-Length": 0 }, { "Content-Length": 0, "Content-Type": "application/json" }]) {
      const { request, answered } = files.startUpload("", { path: "none" }, headers);
      request.end();
      expect([200, 201]).toContain((await answered).statusCode);
      expect((await stat(outside("/home/user/none"))).size).toBe(0);
    }
  });

  test("says whether the file is new, keeps the mode of one that is not, and follows links", async () => {
    expect((await files.put("script", "1")).status).toBe(201);
    await chmod(outside("/home/user/script"), 0o755);
    const again = await files.put("script", "22");
    expect([again.status, await again.json()]).toMatchObject([200, { size: 2, mode: 0o755 }]);
    await symlink("script", outside("/home/user/alias"));
    await symlink("later", outside("/home/user/promise"));
    expect((await files.put("alias", "333")).status).toBe(200);
    expect(await readFile(outside("/home/user/script"), "utf8")).toBe("333");
    expect((await files.put("promise", "4")).status).toBe(201);
    expect(await readFile(outside("/home/user/later"), "utf8")).toBe("4");
  });

  test("is made as the user who is named", async () => {
    const put = await files.fetch("", { path: "mine", user: "other" }, { method: "PUT", body: "x" });
    expect([put.status, await put.json()]).toMatchObject([201, { path: "/home/other/mine", owner: "other" }]);
    const got = await files.fetch("", { path: "mine", user: "other" });
    expect(await got.text()).toBe("x");
    const nobody = await files.fetch("", { path: "mine", user: "no-such-user" }, { method: "PUT", body: "x" });
    expect(await refusalOf(nobody)).toEqual(refused(400, "guest_refused"));
  });

  test("takes gzip", async () => {
    const content = randomBytes(300_000).toString("hex");
    const put = await files.put("unzipped", gzipSync(content), { "Content-Encoding": "gzip" });
    expect([put.status, await put.json()]).toMatchObject([201, { size: content.length }]);
    expect(await readFile(outside("/home/user/unzipped"), "utf8")).toBe(content);
  });
});

describe("2 GiB", () => {
  const total = 2_048 * mib;
  /** Buffers of the machine and of the test itself; a server that kept the file would need far more. */
  const allowedGrowth = 160 * mib;

  /** The most that this process, which the server runs in, has grown by while working. */
  async function growthDuring<Result>(work: () => Promise<Result>): Promise<{ result: Result; growth: number }> {
    const before = process.memoryUsage.rss();
    let highest = before;
    const sampling = setInterval(() => {
      highest = Math.max(highest, process.memoryUsage.rss());
    }, 20);
    try {
      return { result: await work(), growth: highest - before };
    } finally {
      clearInterval(sampling);
    }
  }

  async function hashOf(response: Response): Promise<{ bytes: number; sha256: string }> {
    const hash = createHash("sha256");
    let bytes = 0;
    for await (const chunk of response.body ?? []) {
      hash.update(chunk);
      bytes += chunk.length;
    }
    return { bytes, sha256: hash.digest("hex") };
  }

  test("go up and down unchanged, and the server's memory stays as it is", async () => {
    const piece = randomBytes(mib);
    const sent = createHash("sha256");
    const body = function* (): Generator<Buffer> {
      for (let at = 0; at < total; at += mib) {
        piece.writeUInt32LE(at / mib);
        sent.update(piece);
        yield Buffer.from(piece);
      }
    };
    const up = await growthDuring(async () => {
      const { request, answered } = files.startUpload("", { path: "big/file" }, { "Content-Length": total });
      Readable.from(body()).pipe(request);
      return (await answered).statusCode;
    });
    expect(up.result).toBe(201);
    const down = await growthDuring(async () => hashOf(await files.get("big/file")));
    expect(down.result).toEqual({ bytes: total, sha256: sent.digest("hex") });
    expect(Math.max(up.growth, down.growth)).toBeLessThan(allowedGrowth);
    await rm(outside("/home/user/big"), { recursive: true });
  });

  test("that are nearly all a hole come down as they are", async () => {
    await writeFile(outside("/home/user/sparse"), "begin");
    await truncate(outside("/home/user/sparse"), total);
    const { result, growth } = await growthDuring(async () => hashOf(await files.get("sparse")));
    const expected = createHash("sha256").update("begin");
    const zeros = Buffer.alloc(mib);
    for (let left = total - 5; left > 0; left -= mib) expected.update(zeros.subarray(0, Math.min(left, mib)));
    expect(result).toEqual({ bytes: total, sha256: expected.digest("hex") });
    expect(growth).toBeLessThan(allowedGrowth);
    const part = await files.get("sparse", { Range: `bytes=${total - 3}-` });
    expect([part.status, Buffer.from(await part.arrayBuffer())]).toEqual([206, Buffer.alloc(3)]);
  });
});

describe("a download", () => {
  test("is one that no browser opens by itself, and that no cache believes", async () => {
    await files.put("page.html", "<script>alert(1)</script>");
    const { headers } = await files.get("page.html");
    expect(Object.fromEntries(headers)).toMatchObject({
      "content-type": "application/octet-stream",
      "content-disposition": "attachment; filename=page.html",
      "x-content-type-options": "nosniff",
      "cache-control": "private, no-cache",
      "accept-ranges": "bytes",
      "content-length": "25",
    });
    expect(headers.get("x-access-token")).toBeNull();
  });

  test("gives the part that is asked for", async () => {
    await files.put("digits", "0123456789");
    for (const [range, text, part] of [
      ["bytes=2-4", "234", "bytes 2-4/10"],
      ["bytes=7-", "789", "bytes 7-9/10"],
      ["bytes=-2", "89", "bytes 8-9/10"],
      ["bytes=5-500", "56789", "bytes 5-9/10"],
    ] as const) {
      const got = await files.get("digits", { Range: range });
      expect([got.status, got.headers.get("content-range"), await got.text()]).toEqual([206, part, text]);
    }
    // Several at once, other units: the whole, as the standard allows.
    for (const range of ["bytes=0-1,4-5", "lines=1-2"]) {
      const got = await files.get("digits", { Range: range });
      expect([got.status, await got.text()]).toEqual([200, "0123456789"]);
    }
  });

  test("of a part that there is not says how long the file is", async () => {
    await files.put("digits", "0123456789");
    const got = await files.get("digits", { Range: "bytes=10-" });
    expect(got.headers.get("content-range")).toBe("bytes */10");
    expect(await refusalOf(got)).toEqual([
      416,
      { error: expect.objectContaining({ code: "range_not_satisfiable", details: { size: 10 } }) },
    ]);
  });

  test("honours conditions", async () => {
    await files.put("tagged", "0123456789");
    const first = await files.get("tagged");
    await first.text();
    const [tag, date] = [first.headers.get("etag") ?? "", first.headers.get("last-modified") ?? ""];
    for (const headers of [{ "If-None-Match": tag }, { "If-Modified-Since": date }] as Record<string, string>[]) {
      const got = await files.get("tagged", headers);
      expect([got.status, got.headers.get("etag"), await got.text()]).toEqual([304, tag, ""]);
    }
    expect((await files.get("tagged", { "If-None-Match": '"other"' })).status).toBe(200);
    const resumed = await files.get("tagged", { Range: "bytes=5-", "If-Range": tag });
    expect([resumed.status, await resumed.text()]).toEqual([206, "56789"]);
    await files.put("tagged", "abcdefghij");
    const changed = await files.get("tagged", { Range: "bytes=5-", "If-Range": tag });
    expect([changed.status, await changed.text()]).toEqual([200, "abcdefghij"]);
  });

  test("can be asked about with HEAD", async () => {
    await files.put("head", "0123456789");
    const head = await files.fetch("", { path: "head" }, { method: "HEAD" });
    expect([head.status, head.headers.get("content-length"), await head.text()]).toEqual([200, "10", ""]);
    const part = await files.fetch("", { path: "head" }, { method: "HEAD", headers: { Range: "bytes=1-3" } });
    expect([part.status, part.headers.get("content-length")]).toEqual([206, "3"]);
    expect((await files.fetch("", { path: "missing" }, { method: "HEAD" })).status).toBe(404);
  });

  test("of what says that it is empty and is not gives what can be read", async () => {
    const got = await files.get("/proc/self/comm");
    expect([got.status, await got.text()]).toEqual([200, "wrenn-guest\n"]);
  });

  test("of what is no file, or not there", async () => {
    await mkdir(outside("/home/user/directory"));
    await writeFile(outside("/home/user/plain"), "");
    expect(await refusalOf(await files.get("directory"))).toEqual(refused(400, "wrong_file_type"));
    expect(await refusalOf(await files.get("/dev/zero"))).toEqual(refused(400, "wrong_file_type"));
    expect(await refusalOf(await files.get("missing"))).toEqual(refused(404, "file_not_found"));
  });

  test("that its reader does not read holds the guest back, and is whole when it does", async () => {
    const bytes = randomBytes(64 * mib);
    await mkdir(outside("/home/user/slow"));
    await writeFile(outside("/home/user/slow/file"), bytes);
    const request = files.start("GET", "", { path: "slow/file" }).end();
    const [response] = (await once(request, "response")) as [http.IncomingMessage];
    const position = await settled(async () => Math.max(0, ...(await openIn("/slow"))));
    expect(position).toBeGreaterThan(0);
    expect(position).toBeLessThan(bytes.length / 2);
    const hash = createHash("sha256");
    for await (const chunk of response as AsyncIterable<Buffer>) hash.update(chunk);
    expect(hash.digest("hex")).toBe(sha256(bytes));
    await eventually(async () => expect(await openIn("/slow")).toEqual([]));
  });

  test("whose reader leaves ends in the guest", async () => {
    await mkdir(outside("/home/user/left-down"));
    await writeFile(outside("/home/user/left-down/file"), "");
    await truncate(outside("/home/user/left-down/file"), 2_048 * mib);
    const request = files.start("GET", "", { path: "left-down/file" }).end();
    await once(request, "response");
    await eventually(async () => expect(await openIn("/left-down")).toHaveLength(1));
    request.destroy();
    await eventually(async () => expect(await openIn("/left-down")).toEqual([]));
  });

  test("whose sandbox goes away is cut, not ended", async () => {
    await writeFile(outside("/home/user/cut"), "");
    await truncate(outside("/home/user/cut"), 512 * mib);
    const request = files.start("GET", "", { path: "cut" }).end();
    const [response] = (await once(request, "response")) as [http.IncomingMessage];
    const { agent } = api().server;
    await agent.pause();
    await expect(textOf(response)).rejects.toThrow("aborted");
    expect(await refusalOf(await files.get("cut"))).toEqual(refused(503, "host_unavailable"));
    await agent.resume();
    await eventually(async () => expect((await files.get("/proc/version")).status).toBe(200));
  });
});

describe("an upload", () => {
  test("is seen by nobody before it is whole", async () => {
    await files.put("atomic/file", "old");
    const { request, answered } = files.startUpload("", { path: "atomic/file" });
    request.write(randomBytes(2 * mib));
    await eventually(async () => expect(await files.unfinished("/home/user/atomic")).toHaveLength(1));
    expect(await (await files.get("atomic/file")).text()).toBe("old");
    request.end();
    expect((await answered).statusCode).toBe(200);
    expect((await stat(outside("/home/user/atomic/file"))).size).toBe(2 * mib);
    expect(await files.namesIn("/home/user/atomic")).toEqual(["file"]);
  });

  test("of two to the same path at once leaves one of them whole", async () => {
    const bodies = [Buffer.alloc(5 * mib, "a"), Buffer.alloc(4 * mib, "b")];
    const answers = await Promise.all(bodies.map(async (body) => files.put("both/file", body)));
    expect(answers.map(({ ok }) => ok)).toEqual([true, true]);
    const left = await readFile(outside("/home/user/both/file"));
    expect(bodies.some((body) => body.equals(left))).toBe(true);
    expect(await files.namesIn("/home/user/both")).toEqual(["file"]);
  });

  test("whose sender leaves leaves nothing, and what was there", async () => {
    await files.put("left/file", "kept");
    for (const headers of [{}, { "Content-Length": 50 * mib }]) {
      const { request } = files.startUpload("", { path: "left/file" }, headers);
      request.write(randomBytes(mib));
      await eventually(async () => expect(await files.unfinished("/home/user/left")).toHaveLength(1));
      request.destroy();
      await eventually(async () => expect(await files.namesIn("/home/user/left")).toEqual(["file"]));
    }
    // It is no fault of the server's.
    await eventually(() => expect(api().server.logged.join("")).toMatch(/"level":30[^\n]*"code":"invalid_request"/));
    expect(api().server.logged.join("")).not.toMatch(/"level":50[^\n]*The client left/);
    expect(await readFile(outside("/home/user/left/file"), "utf8")).toBe("kept");
  });

  test("that stalls is ended, and leaves nothing", async () => {
    await mkdir(outside("/home/user/stalled"));
    const { request, answered } = files.startUpload("", { path: "stalled/file" }, { "Content-Length": 50 * mib });
    request.write(randomBytes(mib));
    const answer = await answered;
    expect([answer.statusCode, JSON.parse(await textOf(answer))]).toEqual(refused(408, "request_timeout"));
    await eventually(async () => expect(await files.namesIn("/home/user/stalled")).toEqual([]));
    request.destroy();
  });

  test("that the guest does not take is held back, and is whole when it does", async () => {
    const bytes = randomBytes(64 * mib);
    const { guest } = api();
    const { request, answered } = files.startUpload("", { path: "held" }, { "Content-Length": bytes.length });
    request.write(bytes.subarray(0, mib));
    await eventually(async () => expect(await files.unfinished("/home/user")).toHaveLength(1));
    process.kill(guest.pid, "SIGSTOP");
    try {
      request.end(bytes.subarray(mib));
      expect(await settled(() => request.socket?.writableLength ?? 0)).toBeGreaterThan(bytes.length / 2);
    } finally {
      process.kill(guest.pid, "SIGCONT");
    }
    expect((await answered).statusCode).toBe(201);
    expect(sha256(await readFile(outside("/home/user/held")))).toBe(sha256(bytes));
  });

  test("whose sandbox goes away fails, and leaves nothing", async () => {
    await mkdir(outside("/home/user/lost"));
    const { request, answered } = files.startUpload("", { path: "lost/file" }, { "Content-Length": 50 * mib });
    request.write(randomBytes(mib));
    await eventually(async () => expect(await files.unfinished("/home/user/lost")).toHaveLength(1));
    const { agent } = api().server;
    await agent.pause();
    const answer = await answered;
    expect([answer.statusCode, JSON.parse(await textOf(answer))]).toEqual(refused(503, "connection_lost"));
    request.destroy();
    await eventually(async () => expect(await files.namesIn("/home/user/lost")).toEqual([]));
    await agent.resume();
    await eventually(async () => expect((await files.get("/proc/version")).status).toBe(200));
  });

  test("that is under way when the server stops is ended, and leaves nothing", async () => {
    const { server } = api();
    await mkdir(outside("/home/user/stopped"));
    const replica = await server.startReplica();
    const request = http.request(`${replica.url}${files.target("", { path: "stopped/file" })}`, {
      method: "PUT",
      headers: { "X-API-Key": server.key, "Content-Length": 50 * mib },
    });
    request.on("error", () => undefined);
    request.write(randomBytes(mib));
    await eventually(async () => expect(await files.unfinished("/home/user/stopped")).toHaveLength(1));
    await replica.stop();
    await eventually(async () => expect(await files.namesIn("/home/user/stopped")).toEqual([]));
  });

  test("that does not fit on the disk says so, and leaves nothing", async () => {
    await writeFile(outside("/mnt/file"), "kept");
    for (const size of [2 * smallDiskBytes, 32 * mib]) {
      const put = await files.put("/mnt/file", randomBytes(size));
      expect(await refusalOf(put)).toEqual(refused(507, "guest_out_of_disk"));
      expect(await files.namesIn("/mnt")).toEqual(["file"]);
    }
    expect(await readFile(outside("/mnt/file"), "utf8")).toBe("kept");
    await rm(outside("/mnt/file"));
  });

  test("of a small archive that would fill the disk says so as well", async () => {
    const put = await files.put("/mnt/bomb", gzipSync(Buffer.alloc(64 * mib)), { "Content-Encoding": "gzip" });
    expect(await refusalOf(put)).toEqual(refused(507, "guest_out_of_disk"));
    expect(await files.namesIn("/mnt")).toEqual([]);
  });

  test("that is not the gzip it says, or in a coding that there is not", async () => {
    await mkdir(outside("/home/user/coded"));
    const cut = gzipSync(randomBytes(1_000)).subarray(0, 900);
    for (const body of [cut, Buffer.from("plain")]) {
      const put = await files.put("coded/file", body, { "Content-Encoding": "gzip" });
      expect(await refusalOf(put)).toEqual(refused(400, "guest_refused"));
    }
    const put = await files.put("coded/file", "x", { "Content-Encoding": "br" });
    expect(await refusalOf(put)).toEqual(refused(415, "unsupported_media_type"));
    expect(await files.namesIn("/home/user/coded")).toEqual([]);
  });

  test("to what is no file, or below one", async () => {
    await mkdir(outside("/home/user/a-directory"));
    await writeFile(outside("/home/user/a-file"), "kept");
    for (const path of ["a-directory", "/", "/dev/null", "a-file/below", "x".repeat(300)]) {
      expect(await refusalOf(await files.put(path, "x"))).toEqual(refused(400, "wrong_file_type"));
    }
    expect(await readFile(outside("/home/user/a-file"), "utf8")).toBe("kept");
  });

  test("to where nobody may write", async () => {
    expect(await refusalOf(await files.put("/sys/file", "x"))).toEqual(refused(403, "file_access_denied"));
    expect(await refusalOf(await files.put("/proc/file", "x"))).toEqual(refused(404, "file_not_found"));
  });

  test("that is refused leaves its connection fit for the next request", async () => {
    const { server } = api();
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    const ports = new Set<number | undefined>();
    const send = async (method: string, operation: string, key: string, body?: Buffer): Promise<number | undefined> => {
      const target = `${server.url}${files.target(operation, { path: "/" })}`;
      const length = body === undefined ? {} : { "Content-Length": body.length };
      const request = http.request(target, { method, agent, headers: { "X-API-Key": key, ...length } });
      request.end(body);
      const [response] = (await once(request, "response")) as [http.IncomingMessage];
      ports.add(request.socket?.localPort);
      await textOf(response);
      return response.statusCode;
    };
    const body = randomBytes(8 * mib);
    expect(await send("PUT", "", `wrn_${"0".repeat(40)}`, body)).toBe(401);
    expect(await send("PUT", "", server.key, body)).toBe(400);
    expect(await send("GET", "/stat", server.key)).toBe(200);
    expect(ports.size).toBe(1);
    agent.destroy();
  });

  test("that is refused and goes on for ever is cut off", async () => {
    const { hostname, port } = new URL(api().server.url);
    const socket = net.connect(Number(port), hostname);
    let answer = "";
    socket.on("data", (chunk: Buffer) => (answer += chunk.toString())).on("error", () => undefined);
    socket.write(`PUT ${files.target("", { path: "x" })} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n`);
    const sending = setInterval(() => socket.write("4\r\nmore\r\n"), 50);
    await eventually(() => expect(answer).toMatch(/^HTTP\/1.1 401 /));
    await new Promise((resolve) => socket.once("close", resolve));
    clearInterval(sending);
  });
});

describe("a guest agent that is not what it was", () => {
  /** A sandbox whose guest agent answers every request with this, and closes the connection. */
  async function withAnswer<Result>(answer: string, work: (target: string) => Promise<Result>): Promise<Result> {
    const { server, guest, sandbox } = api();
    const impostor = net.createServer((socket) => {
      socket.on("error", () => undefined).once("data", () => socket.end(answer));
    });
    impostor.listen(0, "127.0.0.1");
    await once(impostor, "listening");
    server.agent.realGuestAgentPort = (impostor.address() as net.AddressInfo).port;
    try {
      const other = await server.create();
      return await work(`${server.url}${files.target("", { path: "x" })}`.replace(sandbox.id, other.id));
    } finally {
      server.agent.realGuestAgentPort = guest.port;
      impostor.close();
    }
  }

  async function getFrom(answer: string): Promise<Response> {
    return withAnswer(answer, async (target) => fetch(target, { headers: { "X-API-Key": api().server.key } }));
  }

  test("breaks off before the first byte, or says nothing that can be understood", async () => {
    const cut = 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\nETag: "x"\r\n\r\n';
    for (const answer of [cut, "", "SSH-2.0-OpenSSH\r\n"]) {
      expect(await refusalOf(await getFrom(answer))).toEqual(refused(503, "connection_lost"));
    }
    const odd = await getFrom("HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops");
    expect(await refusalOf(odd)).toEqual(refused(500, "internal"));
    const upload = { method: "PUT", headers: { "X-API-Key": api().server.key }, body: "x" };
    const put = await withAnswer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", async (target) =>
      fetch(target, upload),
    );
    expect(put.status).toBeGreaterThanOrEqual(500);
  });

  test("cannot make a page of a download, nor speak for this server", async () => {
    const headers = [
      "Content-Type: text/html",
      "Content-Disposition: inline",
      "Set-Cookie: a=b",
      "Wrenn-Error: internal",
      "Content-Encoding: br",
      "Access-Control-Allow-Origin: *",
      "Content-Length: 4",
    ];
    const got = await getFrom(`HTTP/1.1 200 OK\r\n${headers.join("\r\n")}\r\n\r\npage`);
    expect([got.status, await got.text()]).toEqual([200, "page"]);
    expect(Object.fromEntries(got.headers)).toEqual({
      "x-request-id": expect.any(String),
      "content-type": "application/octet-stream",
      "content-disposition": "attachment",
      "content-length": "4",
      "x-content-type-options": "nosniff",
      "cache-control": "private, no-cache",
      connection: "keep-alive",
      "keep-alive": expect.any(String),
      date: expect.any(String),
    });
  });
});
