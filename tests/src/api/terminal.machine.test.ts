import { randomUUID } from "node:crypto";
import { rm } from "node:fs/promises";
import { eventually } from "@wrenn/control-plane/testing";
import { afterEach, expect, test } from "vitest";
import { alive } from "../guest-agent/process-events.ts";
import { endProcesses, useApiServer } from "../harness/api-server.ts";
import { StreamClient } from "../harness/stream-client.ts";

const api = useApiServer();
const clients: StreamClient[] = [];

afterEach(async () => {
  for (const client of clients.splice(0)) client.webSocket.terminate();
  await endProcesses(api().guest);
});

async function open(first: Record<string, unknown>): Promise<StreamClient> {
  const client = await StreamClient.open(api().server, `/v1/sandboxes/${api().sandbox.id}/pty`);
  clients.push(client);
  client.say(first);
  return client;
}

async function start(ask: Record<string, unknown> = {}): Promise<StreamClient> {
  return open({ type: "start", ...ask });
}

/** A shell without a prompt, so that only what the test prints is printed. */
const quietShell = { cmd: "sh", envs: { PS1: "" } };

test("without a command, a terminal runs the user's own shell as a login shell", async () => {
  const client = await start({ user: "user" });
  await client.input('echo "I am $(id -un) in $(pwd) with $0, $TERM"; shopt login_shell; exit 7\n');
  expect((await client.closed()).last).toMatchObject({ type: "exit", exit_code: 7 });
  expect(client.stdout.toString()).toContain("I am user in /home/user with /bin/bash, xterm-256color");
  expect(client.stdout.toString()).toMatch(/login_shell\s+on/);
});

test("a terminal has the size that was asked for, and gets another when it is resized", async () => {
  const client = await start({ ...quietShell, cols: 132, rows: 50 });
  await client.input("stty size\n");
  expect(await client.printed(/^50 132\r$/m)).not.toContain("65535");
  client.say({ type: "resize", cols: 65_535, rows: 1 });
  await client.input("stty size\n");
  await client.printed(/^1 65535\r$/m);
});

test("without a size it has 24 rows of 80 columns", async () => {
  const client = await start({ cmd: "stty", args: ["size"] });
  await client.closed();
  expect(client.stdout.toString()).toBe("24 80\r\n");
});

test("a program is told when its terminal is resized", async () => {
  const client = await start({
    cmd: "sh",
    args: ["-c", "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.02; done"],
  });
  await client.printed("ready");
  client.say({ type: "resize", cols: 100, rows: 40 });
  expect(await client.printed("40 100")).toBe("ready\r\n40 100\r\n");
});

test("what is typed reaches the program through the terminal, Ctrl-C as a signal and Ctrl-D as an end", async () => {
  const client = await start({
    cmd: "sh",
    args: ["-c", "trap 'echo interrupted' INT; echo ready; cat; cat; echo end"],
  });
  await client.printed("ready");
  await client.input("typed\n");
  await client.printed(/typed\r\ntyped\r\n/);
  await client.input("\x03");
  await client.printed("interrupted");
  await client.input("again\n");
  await client.printed(/again\r\nagain\r\n/);
  await client.input("\x04");
  await client.printed("end");
  expect((await client.closed()).last).toMatchObject({ type: "exit", exit_code: 0 });
});

test("every byte that is printed comes through", async () => {
  const client = await start({ cmd: "sh", args: ["-c", "stty raw -echo; printf ready; cat"] });
  await client.printed("ready");
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
  await client.input(bytes);
  await eventually(() => expect(client.stdout.subarray("ready".length).equals(bytes)).toBe(true));
});

test("a terminal with a tag waits for its next client, which gets what was printed and may choose another size", async () => {
  const tag = randomUUID();
  const first = await start({ ...quietShell, tag, cols: 80, rows: 24 });
  const pid = await first.started();
  await first.input("echo before; MARK=kept\n");
  await first.printed(/^before\r$/m);
  await first.vanish();
  // Meanwhile it goes on.
  const second = await open({ type: "attach", tag, cols: 120, rows: 33 });
  expect(await second.message("started")).toEqual({ type: "started", pid, tag });
  await second.printed(/^before\r$/m);
  await second.input("echo $MARK; stty size\n");
  await second.printed(/^kept\r\n33 120\r$/m);
});

test("a screen is painted again for a client that comes back", async () => {
  const tag = randomUUID();
  const painter = "printf '\\033[2J\\033[Hscreen at %s' \"$(stty size)\"";
  const script = `trap "${painter.replaceAll('"', '\\"').replaceAll("$", "\\$")}" WINCH; ${painter}; while :; do sleep 0.02; done`;
  const first = await start({ cmd: "sh", args: ["-c", script], tag, cols: 80, rows: 24 });
  await first.printed("screen at 24 80");
  await first.vanish();
  const second = await open({ type: "attach", tag, cols: 90, rows: 30 });
  const repainted = await second.printed("screen at 30 90");
  expect(repainted).toBe("\x1b[2J\x1b[Hscreen at 24 80\x1b[2J\x1b[Hscreen at 30 90");
});

test("two clients of one terminal see the same, and both may type", async () => {
  const tag = randomUUID();
  const first = await start({ ...quietShell, tag });
  await first.started();
  const second = await open({ type: "attach", tag });
  await second.started();
  await first.input("echo from-first\n");
  await second.printed(/^from-first\r$/m);
  await second.input("echo from-second; exit 4\n");
  await first.printed(/^from-second\r$/m);
  for (const client of [first, second]) {
    expect((await client.closed()).last).toMatchObject({ type: "exit", exit_code: 4 });
  }
});

test("a terminal that has just ended tells its end to who attaches", async () => {
  const tag = randomUUID();
  await (await start({ cmd: "sh", args: ["-c", "echo last words; exit 9"], tag })).closed();
  const late = await open({ type: "attach", tag, cols: 80, rows: 24 });
  expect((await late.closed()).last).toMatchObject({ type: "exit", exit_code: 9 });
  expect(late.stdout.toString()).toBe("last words\r\n");
});

test("a terminal without a tag is hung up when its client leaves", async () => {
  const client = await start({
    cmd: "sh",
    args: ["-c", "trap 'echo hung up >/mnt/hangup; exit' HUP; echo ready; while :; do sleep 0.02; done"],
  });
  const pid = await client.started();
  await client.printed("ready");
  await client.vanish();
  await eventually(async () => expect(await alive(pid)).toBe(false));
  await eventually(async () => rm(api().guest.outside("/mnt/hangup")));
});

test("a terminal that will not be hung up is killed", async () => {
  const client = await start({ cmd: "sh", args: ["-c", "trap '' HUP; echo ready; while :; do sleep 0.02; done"] });
  const pid = await client.started();
  await client.printed("ready");
  await client.vanish();
  await eventually(async () => expect(await alive(pid)).toBe(false));
});

test("a client that leaves a terminal which it attached to ends nothing", async () => {
  const tag = randomUUID();
  const first = await start({ ...quietShell, tag });
  const pid = await first.started();
  const second = await open({ type: "attach", tag });
  await second.started();
  await second.vanish();
  await first.input("echo still here\n");
  await first.printed(/^still here\r$/m);
  expect(await alive(pid)).toBe(true);
});

test.each([
  ["a tag that no terminal has", { type: "attach", tag: "nobody" }, "process_not_found"],
  ["no tag to attach to", { type: "attach" }, "invalid_message"],
  ["a size that no terminal has", { type: "start", cols: 0 }, "invalid_message"],
  ["a size that is no number", { type: "attach", tag: "x", rows: "24" }, "invalid_message"],
  ["a program that there is not", { type: "start", cmd: "no-such-program" }, "command_not_found"],
])("%s is refused", async (_what, message, code) => {
  expect(await (await open(message)).failure()).toEqual([1008, code]);
});

test("a terminal's input cannot be closed, and what has no terminal cannot be attached with a size", async () => {
  const client = await start(quietShell);
  await client.started();
  client.say({ type: "close_stdin" });
  expect(await client.failure()).toEqual([1008, "guest_refused"]);
  const tag = randomUUID();
  const { server, sandbox } = api();
  await server.post(`/v1/sandboxes/${sandbox.id}/processes`, { cmd: "sleep", args: ["1000"], tag });
  expect(await (await open({ type: "attach", tag, cols: 80, rows: 24 })).failure()).toEqual([1008, "guest_refused"]);
});
