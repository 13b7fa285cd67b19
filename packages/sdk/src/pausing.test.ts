/** What is open in a sandbox while it is paused: commands, input, watches, transfers. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import type { processProto } from "@wrenn/contract";
import { afterEach, describe, expect, it } from "vitest";
import { Sandbox } from "./index.ts";
import { sandboxId, ServerStandIn } from "./testing/server-stand-in.ts";

let server: ServerStandIn;

afterEach(async () => {
  await server.stop();
});

async function sandboxWith(...guest: Parameters<typeof ServerStandIn.start>): Promise<Sandbox> {
  server = await ServerStandIn.start(...guest);
  return Sandbox.connect(sandboxId, server.api);
}

type Event = MessageInitShape<typeof processProto.StartResponseSchema> &
  MessageInitShape<typeof processProto.ConnectResponseSchema>;

const started: Event = { event: { event: { case: "start", value: { pid: 7 } } } };
const ended: Event = { event: { event: { case: "end", value: { exitCode: 0, exited: true } } } };

function broken(): ConnectError {
  return new ConnectError("tunnel closed", Code.Unavailable);
}

/** Runs until its sandbox is being paused, which breaks its connection. */
async function* startThenPause(): AsyncGenerator<Event> {
  yield await Promise.resolve(started);
  server.sandbox.status = "pausing";
  throw broken();
}

describe("a command that is followed while its sandbox is paused", () => {
  it("ends with sandbox_paused once the pause is over, and not before", async () => {
    let tries = 0;
    const sandbox = await sandboxWith({
      start: startThenPause,
      connect: () => {
        tries += 1;
        if (tries === 2) server.sandbox.status = "paused";
        throw broken();
      },
    });
    const command = await sandbox.commands.start("sh");
    await expect(command.wait()).rejects.toMatchObject({ name: "ConflictError", code: "sandbox_paused" });
    expect(tries).toBe(2);
  });

  it("goes on when the pause fails, or its sandbox is resumed at once", async () => {
    const sandbox = await sandboxWith({
      start: startThenPause,
      connect: async function* () {
        server.sandbox.status = "running";
        yield await Promise.resolve(started);
        yield ended;
      },
    });
    let reconnects = 0;
    const command = await sandbox.commands.start("sh", { onReconnect: () => void (reconnects += 1) });
    expect((await command.wait()).exitCode).toBe(0);
    expect(reconnects).toBe(1);
  });

  it("is left alone: run rejects and does not kill it, also when it was its input that broke off", async () => {
    let signals = 0;
    const sandbox = await sandboxWith({
      start: async function* (_request, { signal }) {
        yield await Promise.resolve(started);
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
      },
      sendInput: () => {
        server.sandbox.status = "paused";
        throw broken();
      },
      sendSignal: () => {
        signals += 1;
        return {};
      },
    });
    await expect(sandbox.commands.run("cat", { stdin: "text" })).rejects.toMatchObject({ code: "sandbox_paused" });
    expect(signals).toBe(0);
  });
});

describe("a watch", () => {
  it("whose sandbox is paused ends with sandbox_paused, once the pause is over", async () => {
    const sandbox = await sandboxWith(
      {},
      {
        watchDir: async function* () {
          yield await Promise.resolve({ event: { case: "start" as const, value: {} } });
          server.answers.push({ status: 200, body: { ...server.sandbox, status: "pausing" } });
          server.sandbox.status = "paused";
          throw broken();
        },
      },
    );
    const watch = await sandbox.files.watch("inbox", () => undefined);
    await expect(watch.closed).rejects.toMatchObject({ code: "sandbox_paused" });
  });
});

describe("a transfer", () => {
  it("that a pause breaks off says so", async () => {
    const sandbox = await sandboxWith({});
    server.sandbox.status = "paused";
    server.answers.push("cut");
    await expect(sandbox.files.write("a", "b")).rejects.toMatchObject({ code: "sandbox_paused" });
  });
});

describe("a call", () => {
  it("into a paused sandbox is refused with what to do", async () => {
    const sandbox = await sandboxWith({});
    const suggestion = "Resume it first; its memory, disk and processes are kept.";
    server.answers.push({ status: 409, body: { error: { code: "sandbox_paused", message: "It is.", suggestion } } });
    await expect(sandbox.commands.list()).rejects.toMatchObject({ code: "sandbox_paused", suggestion });
  });
});
