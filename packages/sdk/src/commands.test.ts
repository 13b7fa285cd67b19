import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import type { processProto } from "@wrenn/contract";
import { afterEach, describe, expect, it } from "vitest";
import { Sandbox } from "./sandbox.ts";
import { apiKey, sandboxId, ServerStandIn } from "./testing/server-stand-in.ts";

let server: ServerStandIn;

afterEach(async () => {
  await server.stop();
});

type Guest = Parameters<typeof ServerStandIn.start>[0];

async function sandboxWith(guest: Guest): Promise<Sandbox> {
  server = await ServerStandIn.start(guest);
  return Sandbox.connect(sandboxId, server.api);
}

type Event = MessageInitShape<typeof processProto.StartResponseSchema> &
  MessageInitShape<typeof processProto.ConnectResponseSchema>;

const started: Event = { event: { event: { case: "start", value: { pid: 7 } } } };
const ended = (exitCode: number): Event => ({ event: { event: { case: "end", value: { exitCode, exited: true } } } });
const output = (text: string, stream: "stdout" | "stderr" = "stdout"): Event => ({
  event: { event: { case: "data", value: { output: { case: stream, value: new TextEncoder().encode(text) } } } },
});

async function* events(...list: Event[]): AsyncGenerator<Event> {
  for (const event of list) yield await Promise.resolve(event);
}

async function forever(signal: AbortSignal): Promise<never> {
  await new Promise((resolve) => signal.addEventListener("abort", resolve));
  throw new ConnectError("gone", Code.Canceled);
}

describe("a command", () => {
  it("hands out its output, stream by stream, and its end", async () => {
    const sandbox = await sandboxWith({
      start: () => events(started, output("out"), output("err", "stderr"), ended(3)),
    });
    const seen: string[] = [];
    const command = await sandbox.commands.start("sh", {
      onStdout: (bytes) => void seen.push(`1:${Buffer.from(bytes).toString()}`),
      onStderr: (bytes) => void seen.push(`2:${Buffer.from(bytes).toString()}`),
    });
    expect(command.pid).toBe(7);
    expect(await command.wait()).toEqual({ exitCode: 3, exited: true, oomKilled: false, timedOut: false });
    expect(seen).toEqual(["1:out", "2:err"]);
  });

  it("that ended before anybody waited is not missed", async () => {
    const sandbox = await sandboxWith({ start: () => events(started, ended(0)) });
    const command = await sandbox.commands.start("true");
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect((await command.wait()).exitCode).toBe(0);
    expect((await command.wait()).exitCode).toBe(0);
  });

  it("is given no more output than its listener has taken", async () => {
    const sandbox = await sandboxWith({ start: () => events(started, output("a"), output("b"), ended(0)) });
    let under = 0;
    const command = await sandbox.commands.start("yes", {
      onStdout: async () => {
        under += 1;
        expect(under).toBe(1);
        await new Promise((resolve) => setTimeout(resolve, 10));
        under -= 1;
      },
    });
    await command.wait();
  });

  it("carries key, sandbox, user and deadline to the guest", async () => {
    const sandbox = await sandboxWith({ start: () => events(started, ended(0)) });
    const command = await sandbox.commands.start("true", { user: "root", timeoutMs: 1_500 });
    await command.wait();
    const headers = server.requests.find(({ path }) => path.endsWith("/Start"))?.headers;
    expect(headers).toMatchObject({
      "x-api-key": apiKey,
      "wrenn-sandbox-id": sandboxId,
      "wrenn-sandbox-port": "49983",
      "connect-timeout-ms": "1500",
      authorization: `Basic ${btoa("root:")}`,
    });
  });

  it("takes input and signals", async () => {
    const calls: unknown[] = [];
    const note = (name: string) => (request: { process?: processProto.ProcessSelector | undefined }) => {
      calls.push([name, request.process?.selector.value]);
      return {};
    };
    const sandbox = await sandboxWith({
      start: async function* (_request, context) {
        yield started;
        await forever(context.signal);
      },
      sendInput: note("input"),
      sendSignal: note("signal"),
      closeStdin: note("close"),
    });
    const stop = new AbortController();
    const command = await sandbox.commands.start("cat", { stdin: true, signal: stop.signal });
    await command.sendStdin(new Uint8Array([0, 255]));
    await command.kill("SIGTERM");
    await command.closeStdin();
    stop.abort();
    expect(calls).toEqual(["input", "signal", "close"].map((name) => [name, 7]));
    await expect(command.wait()).rejects.toMatchObject({ name: "AbortError" });
  });
});

describe("a broken connection", () => {
  it("is made again by pid, and the command goes on", async () => {
    const sandbox = await sandboxWith({
      start: async function* (_request, context) {
        yield started;
        yield output("before ");
        setTimeout(() => {
          server.breakConnections();
        }, 20);
        await forever(context.signal);
      },
      connect: (request) => {
        expect(request.process?.selector).toEqual({ case: "pid", value: 7 });
        return events(started, output("after"), ended(0));
      },
    });
    let text = "";
    let reconnects = 0;
    const command = await sandbox.commands.start("sh", {
      onStdout: (bytes) => void (text += Buffer.from(bytes).toString()),
      onReconnect: () => void (reconnects += 1),
    });
    expect((await command.wait()).exitCode).toBe(0);
    expect([text, reconnects]).toEqual(["before after", 1]);
  });

  it("ends with the reason when the sandbox is gone", async () => {
    const sandbox = await sandboxWith({
      start: async function* () {
        yield started;
        server.sandbox.status = "error";
        server.sandbox.status_reason = { code: "guest_panicked", message: "The guest's kernel panicked: oops" };
        throw new ConnectError("tunnel closed", Code.Unavailable);
      },
    });
    const command = await sandbox.commands.start("sh");
    await expect(command.wait()).rejects.toMatchObject({ code: "guest_panicked", message: /oops/ });
  });

  it("ends with the reason when the sandbox was idle for too long", async () => {
    const sandbox = await sandboxWith({
      start: async function* () {
        yield started;
        server.sandbox.status = "stopped";
        server.sandbox.status_reason = { code: "idle_timeout", message: "Nobody used it for 60 s." };
        throw new ConnectError("tunnel closed", Code.Unavailable);
      },
    });
    const command = await sandbox.commands.start("sh");
    await expect(command.wait()).rejects.toMatchObject({ code: "idle_timeout", message: "Nobody used it for 60 s." });
  });

  it("ends when the guest no longer knows the process", async () => {
    const sandbox = await sandboxWith({
      start: async function* () {
        yield started;
        throw new ConnectError("lost", Code.Unavailable);
      },
      connect: () => {
        throw new ConnectError("process with pid 7 not found", Code.NotFound);
      },
    });
    const command = await sandbox.commands.start("sh");
    await expect(command.wait()).rejects.toMatchObject({ code: "process_not_found" });
  });
});

describe("a command that cannot start", () => {
  it.each([
    [Code.NotFound, "command_not_found"],
    [Code.PermissionDenied, "command_not_executable"],
    [Code.InvalidArgument, "guest_refused"],
    [Code.Unauthenticated, "guest_refused"],
  ])("with the guest's code %i is %s, in the guest's words", async (code, expected) => {
    const sandbox = await sandboxWith({
      start: () => {
        throw new ConnectError("the guest's words", code);
      },
    });
    await expect(sandbox.commands.start("nope")).rejects.toMatchObject({
      code: expected,
      message: "the guest's words",
    });
  });

  it("because of Wrenn itself keeps Wrenn's code", async () => {
    const sandbox = await sandboxWith({});
    server.answers.push({ status: 503, body: { error: { code: "host_unavailable", message: "The agent is away." } } });
    await expect(sandbox.commands.start("true")).rejects.toMatchObject({
      code: "host_unavailable",
      message: "The agent is away.",
    });
  });
});
