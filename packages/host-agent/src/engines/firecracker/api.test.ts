import { link, mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { once } from "node:events";
import { tmpdir } from "node:os";
import path from "node:path";
import { WrennError } from "@wrenn/contract";
import { afterEach, beforeEach, expect, it } from "vitest";
import { FirecrackerApi } from "./api.ts";

let directory: string;
let server: Server;
let api: FirecrackerApi;
const requests: string[] = [];

beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "wrenn-api-"));
  server = createServer();
  api = new FirecrackerApi(path.join(directory, "api.sock"));
  requests.length = 0;
});

afterEach(async () => {
  server.close();
  await rm(directory, { recursive: true });
});

/** Has a server on the socket that gives every request this answer. */
async function answering(answer: (socket: Socket) => void): Promise<void> {
  server.on("connection", (socket) => {
    socket.on("error", () => undefined);
    let request = "";
    socket.on("data", (chunk) => {
      request += chunk.toString();
      const [head = "", body = ""] = request.split("\r\n\r\n");
      const length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0);
      if (!request.includes("\r\n\r\n") || body.length < length) return;
      requests.push(`${head.split("\r\n")[0] ?? ""} ${body}`);
      answer(socket);
    });
  });
  server.listen(path.join(directory, "api.sock"));
  await once(server, "listening");
}

const reply = (status: string, body = ""): string =>
  `HTTP/1.1 ${status} \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n` +
  (body === "" ? "\r\n" : `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`);

async function refusal(call: Promise<unknown>): Promise<WrennError> {
  const error: unknown = await call.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof WrennError)) throw new Error(`not refused: ${String(error)}`);
  expect(error.code).toBe("engine_failed");
  return error;
}

it("knows a socket that nobody listens on from one that somebody does", async () => {
  server.listen(path.join(directory, "named.sock"));
  await once(server, "listening");
  await link(path.join(directory, "named.sock"), path.join(directory, "api.sock"));
  await expect(api.listens()).resolves.toBe(true);
  server.close();
  await once(server, "close");
  await expect(api.listens()).resolves.toBe(false);
  await rm(path.join(directory, "api.sock"));
  expect((await refusal(api.listens())).message).toContain("dialled");
});

it("asks in Firecracker's words, and understands what it says of itself", async () => {
  const instance = { id: "one", state: "Paused", vmm_version: "1.16.1", app_name: "Firecracker" };
  await answering((socket) => socket.write(reply("200", JSON.stringify(instance))));
  await expect(api.instance()).resolves.toMatchObject({ id: "one", state: "Paused", vmm_version: "1.16.1" });
  await api.setState("Paused");
  expect(requests).toEqual(["GET / HTTP/1.1 ", 'PATCH /vm HTTP/1.1 {"state":"Paused"}']);
});

it("takes an answer without content for success, on a connection that stays open", async () => {
  await answering((socket) => socket.write(reply("204")));
  await expect(api.setState("Resumed")).resolves.toBeUndefined();
});

it("hands on the fault that Firecracker tells of", async () => {
  const fault = "Load snapshot error: Failed to restore from snapshot: CRC64 validation failed: 3";
  await answering((socket) => socket.write(reply("400", JSON.stringify({ fault_message: fault }))));
  const load = api.loadSnapshot({
    snapshot_path: "/device-state",
    mem_backend: { backend_type: "File", backend_path: "/memory" },
    track_dirty_pages: true,
    resume_vm: true,
  });
  expect((await refusal(load)).message).toBe(`Firecracker refused PUT /snapshot/load: ${fault}`);
});

it("says so when a refusal has no reason, or an answer no sense", async () => {
  const answers = [reply("500", "<html>"), reply("200", '{"state":"Flying"}')];
  await answering((socket) => socket.write(answers.shift() ?? ""));
  expect((await refusal(api.setState("Paused"))).message).toContain("status 500");
  expect((await refusal(api.instance())).message).toContain("does not say what it is");
});

it("gives up on one that does not answer, with the call that it was", async () => {
  await answering(() => undefined);
  expect((await refusal(api.instance(30))).message).toBe("Firecracker did not answer GET / within 30 ms.");
});

it("gives up on one that stops in the middle of an answer", async () => {
  await answering((socket) => socket.write('HTTP/1.1 200 \r\nContent-Length: 500\r\n\r\n{"id":'));
  expect((await refusal(api.instance(50))).message).toContain("GET / within 50 ms");
});

it("notices that the connection ends before, or in the middle of, the answer", async () => {
  const ends = [
    (socket: Socket) => socket.destroy(),
    (socket: Socket) => socket.end('HTTP/1.1 200 \r\nContent-Length: 500\r\n\r\n{"id":'),
  ];
  await answering((socket) => ends.shift()?.(socket));
  expect((await refusal(api.instance())).message).toContain("GET /");
  expect((await refusal(api.instance())).message).toContain("GET /");
});

it("does not keep an answer that has no end", async () => {
  await answering((socket) => {
    socket.write("HTTP/1.1 200 \r\nContent-Length: 100000000\r\n\r\n");
    for (let sent = 0; sent < 4; sent++) socket.write("x".repeat(32_768));
  });
  expect((await refusal(api.instance())).message).toContain("does not end");
});

it("says that nobody is there", async () => {
  expect((await refusal(api.instance())).message).toContain("Firecracker did not answer GET /");
});
