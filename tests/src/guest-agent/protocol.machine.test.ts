import { once } from "node:events";
import { Agent, request } from "node:http";
import { connect } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { refusal, startGuestAgent, type RequestBody, type GuestAgent } from "./harness.ts";

let agent: GuestAgent;
beforeAll(async () => {
  agent = await startGuestAgent();
});
afterAll(() => agent.stop());

function post(path: string, body: RequestBody, headers: Record<string, string>): Promise<Response> {
  return agent.fetch(path, { method: "POST", body, headers });
}

const json = { "Content-Type": "application/json" };
const stream = { "Content-Type": "application/connect+json" };

function envelope(message: string, flags = 0, length = Buffer.byteLength(message)): Buffer<ArrayBuffer> {
  const header = Buffer.alloc(5);
  header[0] = flags;
  header.writeUInt32BE(length, 1);
  return Buffer.concat([header, Buffer.from(message)]);
}

/** The messages of a stream; the last is the end of the stream. */
async function messages(response: Response): Promise<unknown[]> {
  let rest = Buffer.from(await response.arrayBuffer());
  const found: unknown[] = [];
  while (rest.length > 0) {
    const length = rest.readUInt32BE(1);
    found.push({ flags: rest[0], ...JSON.parse(rest.subarray(5, 5 + length).toString()) });
    rest = rest.subarray(5 + length);
  }
  return found;
}

describe("unary calls", () => {
  test("take both spellings of a field and ignore what they do not know", async () => {
    for (const body of [
      '{"path":"/mnt","includeEntry":true,"x":1}',
      '{"path":"/mnt","include_entry":true,"y":{"z":[]}}',
    ]) {
      const created = await post("/filesystem.Filesystem/CreateWatcher", body, json);
      expect(created.status).toBe(200);
      const { watcherId } = z.object({ watcherId: z.string() }).parse(await created.json());
      const removed = await post(
        "/filesystem.Filesystem/RemoveWatcher",
        JSON.stringify({ watcher_id: watcherId }),
        json,
      );
      expect(await removed.json()).toEqual({});
    }
  });

  test("write 64-bit numbers and enums as proto3 JSON does", async () => {
    const response = await post("/filesystem.Filesystem/Stat", '{"path":"/etc"}', {
      ...json,
      "Connect-Protocol-Version": "1",
    });
    expect(response.headers.get("content-type")).toBe("application/json");
    const { entry } = z.object({ entry: z.unknown() }).parse(await response.json());
    expect(entry).toMatchObject({
      type: "FILE_TYPE_DIRECTORY",
      size: expect.stringMatching(/^\d+$/),
      modifiedTime: expect.stringMatching(/^\d{4}-.*Z$/),
    });
  });

  test.each<[string, string, Record<string, string>, number, unknown]>([
    ["broken JSON", "{", json, 400, { code: "invalid_argument" }],
    ["JSON of another shape", '{"path":1}', json, 400, { code: "invalid_argument" }],
    ["broken protobuf", "\xff\xff", { "Content-Type": "application/proto" }, 400, { code: "invalid_argument" }],
    ["another protocol version", "{}", { ...json, "Connect-Protocol-Version": "2" }, 400, { code: "invalid_argument" }],
    ["a timeout that is none", "{}", { ...json, "Connect-Timeout-Ms": "soon" }, 400, { code: "invalid_argument" }],
    ["a compressed message", "{}", { ...json, "Content-Encoding": "gzip" }, 501, { code: "unimplemented" }],
    [
      "a path that does not exist",
      '{"path":"/nothing"}',
      json,
      404,
      { code: "not_found", message: "file not found: /nothing" },
    ],
  ])("answer %s with an error", async (_, body, headers, status, error) => {
    const response = await post("/filesystem.Filesystem/Stat", Buffer.from(body, "latin1"), headers);
    expect([response.status, await response.json()]).toEqual([status, expect.objectContaining(error)]);
    expect(response.headers.get("content-type")).toBe("application/json");
  });

  test("are bounded in size", async () => {
    const response = await post("/process.Process/List", Buffer.alloc(65 * 1024 * 1024, " "), json);
    expect(await refusal(response)).toMatchObject({ status: 429, code: "resource_exhausted" });
  });

  test("end at their deadline", async () => {
    const started = await post(
      "/process.Process/Start",
      envelope('{"process":{"cmd":"sleep","args":["9"]},"tag":"full"}'),
      {
        ...stream,
        "Connect-Timeout-Ms": "4000",
      },
    );
    const input = JSON.stringify({
      process: { tag: "full" },
      input: { stdin: Buffer.alloc(200_000).toString("base64") },
    });
    const response = await post("/process.Process/SendInput", input, { ...json, "Connect-Timeout-Ms": "300" });
    expect(await refusal(response)).toMatchObject({ status: 504, code: "deadline_exceeded" });
    await started.body?.cancel();
  });
});

describe("streams", () => {
  const start = "/process.Process/Start";

  test("end with an envelope of their own, errors included, and HTTP 200", async () => {
    const good = await messages(await post(start, envelope('{"process":{"cmd":"true"}}'), stream));
    expect(good.at(-1)).toEqual({ flags: 2 });
    expect(good[0]).toMatchObject({ flags: 0, event: { start: {} } });
    const bad = await post(start, envelope('{"process":{"cmd":"none"}}'), stream);
    expect(bad.status).toBe(200);
    expect(bad.headers.get("content-type")).toBe("application/connect+json");
    expect(await messages(bad)).toEqual([
      { flags: 2, error: { code: "not_found", message: "command 'none' not found" } },
    ]);
  });

  test.each<[string, Buffer<ArrayBuffer>, string]>([
    ["no message", Buffer.alloc(0), "invalid_argument"],
    ["a message cut short", envelope("{}", 0, 10), "invalid_argument"],
    ["a message that is no JSON", envelope("{"), "invalid_argument"],
    ["two messages", Buffer.concat([envelope("{}"), envelope("{}")]), "invalid_argument"],
    ["unknown flags", envelope("{}", 0x20), "invalid_argument"],
    ["a compressed message", envelope("{}", 1), "internal"],
    ["a message beyond the bound", envelope("", 0, 0xff_ff_ff_ff), "resource_exhausted"],
  ])("answer %s with an error", async (_, body, code) => {
    const response = await post(start, body, stream);
    expect(response.status).toBe(200);
    expect(await messages(response)).toEqual([{ flags: 2, error: expect.objectContaining({ code }) }]);
  });

  test("know the other compression header too", async () => {
    const response = await post(start, envelope("{}"), { ...stream, "Connect-Content-Encoding": "br" });
    expect(await messages(response)).toMatchObject([{ error: { code: "unimplemented" } }]);
  });
});

describe("what is not there", () => {
  test.each([
    ["/process.Process/Nothing", "POST", json, 404],
    ["/filesystem.Filesystem/Nothing", "POST", stream, 404],
    ["/process.Process/Start", "POST", json, 404],
    ["/process.Process/List", "POST", stream, 404],
    ["/process.Process/List", "GET", {}, 405],
    ["/process.Process/List", "POST", { "Content-Type": "text/plain" }, 415],
    ["/process.Process/List", "POST", {}, 415],
    ["/nothing", "GET", {}, 404],
    ["/init", "GET", {}, 405],
    ["/health", "POST", {}, 405],
    ["/files", "DELETE", {}, 405],
    ["/files/compose", "GET", {}, 405],
    ["/metrics", "POST", {}, 405],
    ["/tunnel", "POST", {}, 405],
    ["/tunnel", "GET", {}, 426],
  ])("%s %s", async (path, method, headers, status) => {
    const response = await agent.fetch(path, { method, headers: headers as Record<string, string> });
    expect(response.status).toBe(status);
    expect(response.headers.has("allow")).toBe(status === 405);
  });
});

describe("connections", () => {
  test("are kept through calls, streams and errors", async () => {
    const http = new Agent({ keepAlive: true, maxSockets: 1 });
    const ports = new Set<number | undefined>();
    const send = async (path: string, body: Buffer | string, headers: Record<string, string>) => {
      const asked = request(`${agent.url}${path}`, { agent: http, method: "POST", headers });
      asked.end(body);
      const [response] = await once(asked, "response");
      ports.add(asked.socket?.localPort);
      response.resume();
      await once(response, "end");
    };
    for (let round = 0; round < 3; round += 1) {
      await send("/process.Process/Start", envelope('{"process":{"cmd":"true"}}'), stream);
      await send("/process.Process/Start", envelope('{"process":{"cmd":"none"}}'), stream);
      await send("/process.Process/List", "{}", json);
      await send("/process.Process/List", "{", json);
      await send("/process.Process/Nothing", "{}", json);
      await send("/files?path=/home", "x", { "Content-Type": "application/octet-stream" });
    }
    http.destroy();
    expect(ports.size).toBe(1);
  });

  test("take heads of 16 KiB", async () => {
    expect((await agent.fetch("/health", { headers: { "X-Large": "x".repeat(16 * 1024) } })).status).toBe(204);
  });

  test("that do not speak HTTP are refused, and the agent goes on", async () => {
    const socket = connect(agent.port, "127.0.0.1");
    socket.write("\0\x01nonsense\r\n\r\n");
    const [answer] = await once(socket, "data");
    expect(String(answer)).toMatch(/^HTTP\/1.1 400/);
    socket.destroy();
    expect((await agent.fetch("/health")).status).toBe(204);
  });
});
