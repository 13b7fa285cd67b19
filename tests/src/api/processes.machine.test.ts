import { randomUUID } from "node:crypto";
import { readFile, rm } from "node:fs/promises";
import { listProcessesSchema, startedProcessSchema } from "@wrenn/contract";
import type { Process, StartedProcess, StartProcessInput } from "@wrenn/contract";
import { eventually } from "@wrenn/control-plane/testing";
import type { Answer } from "@wrenn/control-plane/testing";
import { afterEach, expect, test } from "vitest";
import { alive } from "../guest-agent/process-events.ts";
import { endProcesses, useApiServer } from "../harness/api-server.ts";

const api = useApiServer();

afterEach(async () => endProcesses(api().guest));

function address(rest = ""): string {
  return `/v1/sandboxes/${api().sandbox.id}/processes${rest}`;
}

async function start(ask: StartProcessInput): Promise<StartedProcess> {
  const { status, body } = await api().server.post(address(), ask);
  expect([status, body]).toEqual([201, expect.anything()]);
  return startedProcessSchema.strict().parse(body);
}

async function list(): Promise<Process[]> {
  const { status, body } = await api().server.call("GET", address());
  expect(status).toBe(200);
  return listProcessesSchema.strict().parse(body).processes;
}

async function signal(pid: number, body: unknown): Promise<Answer> {
  return api().server.post(address(`/${pid}/signal`), body);
}

function codeOf({ status, body }: Answer): [number, unknown] {
  return [status, (body as { error?: { code?: unknown } }).error?.code];
}

test("a process runs on when its request has been answered, and is listed until it ends", async () => {
  const tag = randomUUID();
  const started = await start({ cmd: "sleep", args: ["1000"], tag, cwd: "/usr" });
  expect(started.tag).toBe(tag);
  expect(await alive(started.pid)).toBe(true);
  expect(await list()).toEqual([{ pid: started.pid, tag, cmd: "sleep", args: ["1000"], cwd: "/usr" }]);
  // SIGTERM, which is what is sent without a name.
  expect((await signal(started.pid, {})).status).toBe(204);
  await eventually(async () => expect(await list()).toEqual([]));
});

test("processes without a tag are listed too, oldest first", async () => {
  const pids = [];
  for (const seconds of ["1001", "1002", "1003"]) pids.push((await start({ cmd: "sleep", args: [seconds] })).pid);
  expect((await list()).map(({ pid, tag, args }) => [pid, tag, args[0]])).toEqual([
    [pids[0], null, "1001"],
    [pids[1], null, "1002"],
    [pids[2], null, "1003"],
  ]);
});

test("a process's environment and input are in no list", async () => {
  await start({ cmd: "sleep", args: ["1000"], envs: { PASSWORD: "hunter2hunter2" } });
  expect(JSON.stringify(await list())).not.toContain("hunter2");
});

test("a signal reaches the process that it is for", async () => {
  const script = "trap 'touch /mnt/usr1; exit 0' USR1; while :; do sleep 0.02; done";
  const { pid } = await start({ cmd: "sh", args: ["-c", `echo ready >/mnt/ready; ${script}`] });
  const ready = api().guest.outside("/mnt/ready");
  await eventually(async () => readFile(ready));
  await rm(ready);
  expect((await signal(pid, { signal: "SIGUSR1" })).status).toBe(204);
  await eventually(async () => rm(api().guest.outside("/mnt/usr1")));
  await eventually(async () => expect(await alive(pid)).toBe(false));
});

test("a process's lifetime ends it with all that it started", async () => {
  const { pid } = await start({ cmd: "sh", args: ["-c", "sleep 1000 & wait"], timeout_seconds: 0.3 });
  await eventually(async () => expect(await alive(pid)).toBe(false));
  await eventually(async () => expect(await list()).toEqual([]));
});

test("a tag is a process's own while it runs", async () => {
  const tag = randomUUID();
  const asks = Array.from({ length: 5 }, async () =>
    api().server.post(address(), { cmd: "sleep", args: ["1000"], tag }),
  );
  const answers = (await Promise.all(asks)).map((answer) => codeOf(answer)).sort(([a], [b]) => a - b);
  expect(answers).toEqual([[201, undefined], ...Array.from({ length: 4 }, () => [409, "process_tag_taken"])]);
  expect(codeOf(await api().server.post(address(), { cmd: "true", tag }))).toEqual([409, "process_tag_taken"]);
  const [{ pid } = { pid: 0 }] = await list();
  await signal(pid, { signal: "SIGKILL" });
  await eventually(async () => expect(await list()).toEqual([]));
  expect((await start({ cmd: "true", tag })).tag).toBe(tag);
});

test.each([
  ["a program that there is not", { cmd: "no-such-program" }, 404, "command_not_found"],
  ["an empty tag", { cmd: "true", tag: "" }, 400, "invalid_request"],
  ["a lifetime of no length", { cmd: "true", timeout_seconds: 0 }, 400, "invalid_request"],
  ["a field that there is not", { cmd: "true", pty: true }, 400, "invalid_request"],
])("%s starts nothing", async (_what, ask, status, code) => {
  expect(codeOf(await api().server.post(address(), ask))).toEqual([status, code]);
  expect(await list()).toEqual([]);
});

test("what has ended, never was, or is no process of Wrenn's cannot be signalled", async () => {
  const { pid } = await start({ cmd: "true" });
  await eventually(async () => expect(await list()).toEqual([]));
  expect(codeOf(await signal(pid, {}))).toEqual([404, "process_not_found"]);
  expect(codeOf(await signal(1, {}))).toEqual([404, "process_not_found"]);
  expect(codeOf(await signal(4_294_967_295, {}))).toEqual([404, "process_not_found"]);
  for (const pid of ["0", "-1", "1.5", "x", "4294967296"]) {
    expect(codeOf(await api().server.post(address(`/${pid}/signal`), {}))).toEqual([400, "invalid_request"]);
  }
  expect(codeOf(await signal(1, { signal: "SIGWINCH" }))).toEqual([400, "invalid_request"]);
});
