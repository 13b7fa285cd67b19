import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { LineSplitter, QmpClient, type QmpEvent } from "./qmp.ts";
import { type ScriptedAnswer, serveQmp } from "./testing/scripted-qmp.ts";

let directory: string;
let server: Server;
let socketPath: string;
let events: QmpEvent[];

const serve = (answer: ScriptedAnswer): Promise<void> => serveQmp(server, socketPath, answer);

const connect = (): Promise<QmpClient> => QmpClient.connect(socketPath, (event) => events.push(event));

beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "wrenn-qmp-"));
  socketPath = path.join(directory, "qmp.sock");
  server = createServer();
  events = [];
});

afterEach(async () => {
  server.close();
  await rm(directory, { recursive: true });
});

it("finds lines in whatever pieces the bytes arrive", () => {
  const lines = new LineSplitter();
  const bytes = Buffer.from('{"a":"ü"}\r\n{"b":1}\n{"c"');
  const found: string[] = [];
  for (const byte of bytes) found.push(...lines.push(Buffer.from([byte])));
  expect(found).toEqual(['{"a":"ü"}', '{"b":1}']);
  expect(lines.push(Buffer.from(":2}\n"))).toEqual(['{"c":2}']);
});

it("refuses a line without end, instead of keeping all of it", () => {
  const lines = new LineSplitter();
  const chunk = Buffer.alloc(1_048_576, "x");
  expect(() => {
    for (let sent = 0; sent < 8; sent++) lines.push(chunk);
  }).toThrow("too long a line");
});

it("matches answers to commands, whatever comes between them", async () => {
  const waiting: { command: string; id: number }[] = [];
  await serve((command, id, socket) => {
    waiting.push({ command, id });
    if (waiting.length < 2) return;
    socket.write(`{"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}}\r\n`);
    for (const { command, id } of waiting.toReversed()) socket.write(`{"return": "to ${command}", "id": ${id}}\r\n`);
  });
  const qmp = await connect();
  await expect(Promise.all([qmp.execute("first"), qmp.execute("second")])).resolves.toEqual(["to first", "to second"]);
  expect(events).toEqual([{ name: "STOP", data: {} }]);
  qmp.close();
});

it("reports what QEMU refused in QEMU's words", async () => {
  await serve((_command, id, socket) => {
    socket.write(`{"error": {"class": "GenericError", "desc": "no such device"}, "id": ${id}}\r\n`);
  });
  const qmp = await connect();
  await expect(qmp.execute("device_del")).rejects.toMatchObject({
    code: "engine_failed",
    message: "QEMU refused: no such device",
  });
  qmp.close();
});

it("fails what is under way, and what comes after, when the connection is lost", async () => {
  await serve((_command, _id, socket) => {
    socket.destroy();
  });
  const qmp = await connect();
  await expect(qmp.execute("query-status")).rejects.toMatchObject({ code: "engine_failed" });
  await qmp.closed;
  await expect(qmp.execute("query-status")).rejects.toMatchObject({ code: "engine_failed" });
});

it("hangs up on something that is not QMP", async () => {
  await serve((_command, _id, socket) => {
    socket.write("HTTP/1.1 400 Bad Request\r\n");
  });
  const qmp = await connect();
  await expect(qmp.execute("query-status")).rejects.toMatchObject({ code: "engine_failed" });
});

it("waits for a socket that is still to come, and not for one that never will", async () => {
  const connecting = connect();
  setTimeout(() => void serve(() => undefined), 50);
  (await connecting).close();
  const never = QmpClient.connect(path.join(directory, "other.sock"), () => undefined, { mayStillCome: () => false });
  await expect(never).rejects.toMatchObject({ code: "engine_failed" });
});
