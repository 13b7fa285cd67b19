import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import http from "node:http";
import { execResultSchema } from "@wrenn/contract";
import type { ExecInput, ExecResult } from "@wrenn/contract";
import { eventually } from "@wrenn/control-plane/testing";
import type { Answer } from "@wrenn/control-plane/testing";
import fc from "fast-check";
import { afterEach, expect, test } from "vitest";
import { alive } from "../guest-agent/process-events.ts";
import { endProcesses, useApiServer } from "../harness/api-server.ts";

const api = useApiServer();

// Whatever a test did, no command of it is left.
afterEach(untilNoProcess);

async function untilNoProcess(): Promise<void> {
  await eventually(async () => expect((await api().guest.process().list({})).processes).toEqual([]));
}

async function send(ask: ExecInput): Promise<Answer> {
  return api().server.post(`/v1/sandboxes/${api().sandbox.id}/exec`, ask);
}

async function exec(ask: ExecInput): Promise<ExecResult> {
  const { status, body } = await send(ask);
  expect([status, body]).toEqual([200, expect.anything()]);
  return execResultSchema.strict().parse(body);
}

async function shell(script: string, more: Partial<ExecInput> = {}): Promise<ExecResult> {
  return exec({ cmd: "sh", args: ["-c", script], ...more });
}

async function refusal(ask: ExecInput): Promise<[number, unknown]> {
  const { status, body } = await send(ask);
  return [status, (body as { error?: { code?: unknown } }).error?.code];
}

test("a command's output, end and duration are told", async () => {
  expect(await shell("echo out; echo err >&2; exit 3")).toEqual({
    exit_code: 3,
    exited: true,
    timed_out: false,
    oom_killed: false,
    stdout: "out\n",
    stdout_encoding: "utf-8",
    stdout_bytes: 4,
    stdout_truncated: false,
    stderr: "err\n",
    stderr_encoding: "utf-8",
    stderr_bytes: 4,
    stderr_truncated: false,
    duration_ms: expect.any(Number),
  });
  expect(await shell("kill -TERM $$")).toMatchObject({ exit_code: 143, exited: false, timed_out: false });
});

test("arguments reach the program as they are, without a shell", async () => {
  const args = ["$HOME", "a b", "", "'\"`", "ü€😀", "-n"];
  expect((await exec({ cmd: "printf", args: ["%s|", ...args] })).stdout).toBe(`${args.join("|")}|`);
});

test("user, directory and variables are those that were asked for", async () => {
  const script = 'id -un; pwd; echo "$GREETING $HOME"';
  expect((await shell(script, { user: "user", envs: { GREETING: "hello" } })).stdout).toBe(
    "user\n/home/user\nhello /home/user\n",
  );
  expect((await shell("pwd", { cwd: "/usr/bin" })).stdout).toBe("/usr/bin\n");
});

test("input is read to its end, and without any there is end of file", async () => {
  expect((await exec({ cmd: "cat" })).stdout).toBe("");
  expect((await exec({ cmd: "cat", stdin: "hällo" })).stdout).toBe("hällo");
  expect((await exec({ cmd: "cat", stdin: "AP8=", stdin_encoding: "base64" })).stdout).toBe("AP8=");
  expect(await refusal({ cmd: "cat", stdin: "not base64!", stdin_encoding: "base64" })).toEqual([
    400,
    "invalid_request",
  ]);
});

test("input that a command does not read harms nothing", async () => {
  const stdin = "x".repeat(900_000);
  expect(await shell("echo done", { stdin })).toMatchObject({ exit_code: 0, stdout: "done\n" });
  expect(await shell("exec <&-; echo done", { stdin })).toMatchObject({ exit_code: 0, stdout: "done\n" });
  expect(await shell("head -c 3", { stdin })).toMatchObject({ exit_code: 0, stdout: "xxx" });
});

test("any bytes come back the same", async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 3_000 }), async (bytes) => {
      const stdin = Buffer.from(bytes).toString("base64");
      const { stdout, stdout_encoding: encoding } = await exec({ cmd: "cat", stdin, stdin_encoding: "base64" });
      expect(Buffer.from(stdout, encoding).equals(bytes)).toBe(true);
    }),
    { numRuns: 40 },
  );
});

test("half a megabyte of any bytes comes back the same, while it is still being sent", async () => {
  const bytes = randomBytes(500_000);
  const stdin = bytes.toString("base64");
  const { stdout, stdout_encoding: encoding } = await exec({ cmd: "cat", stdin, stdin_encoding: "base64" });
  expect(Buffer.from(stdout, encoding).equals(bytes)).toBe(true);
});

test("text written in pieces that split its characters is text", async () => {
  const script =
    "printf '\\342'; sleep 0.05; printf '\\202'; sleep 0.05; printf '\\254\\360\\237'; printf '\\230\\200'";
  expect(await shell(script)).toMatchObject({ stdout: "€😀", stdout_encoding: "utf-8", stdout_bytes: 7 });
});

test("output beyond the cap is counted and dropped, and the command runs to its end", async () => {
  const result = await shell("head -c 50000000 /dev/zero | tr '\\0' x; echo err >&2; exit 7", { max_output_bytes: 10 });
  expect(result).toMatchObject({
    exit_code: 7,
    stdout: "xxxxxxxxxx",
    stdout_bytes: 50_000_000,
    stdout_truncated: true,
    stderr: "err\n",
    stderr_truncated: false,
  });
});

test("a cap never splits a character, and leaves bytes that are no text as they are", async () => {
  expect(await shell("printf 'aé€😀'", { max_output_bytes: 8 })).toMatchObject({
    stdout: "aé€",
    stdout_encoding: "utf-8",
    stdout_bytes: 10,
    stdout_truncated: true,
  });
  expect(await shell("printf '\\377\\376\\375'", { max_output_bytes: 2 })).toMatchObject({
    stdout: "//4=",
    stdout_encoding: "base64",
    stdout_truncated: true,
  });
});

test("a timeout kills the command and all that it started, and says so", async () => {
  const result = await shell("sh -c 'sleep 1000 & echo $!; wait' & echo $$; wait", { timeout_seconds: 0.5 });
  expect(result).toMatchObject({ exit_code: 137, exited: false, timed_out: true });
  const pids = result.stdout.trim().split("\n").map(Number);
  expect(pids).toHaveLength(2);
  for (const pid of pids) await eventually(async () => expect(await alive(pid)).toBe(false));
});

test.each([
  ["a program that there is not", { cmd: "no-such-program" }, 404, "command_not_found"],
  ["a path that there is not", { cmd: "/no/such/program" }, 404, "command_not_found"],
  ["a file that is no program", { cmd: "/etc/passwd" }, 403, "command_not_executable"],
  ["a directory that there is not", { cmd: "true", cwd: "/no/such/directory" }, 400, "guest_refused"],
  ["a user that there is not", { cmd: "true", user: "nobody-at-all" }, 400, "guest_refused"],
  ["no program", { cmd: "" }, 400, "invalid_request"],
  ["a NUL in an argument", { cmd: "true", args: ["a\0b"] }, 400, "invalid_request"],
  ["a timeout that is too long", { cmd: "true", timeout_seconds: 3_601 }, 400, "invalid_request"],
])("%s is an error of its own", async (_what, ask, status, code) => {
  expect(await refusal(ask)).toEqual([status, code]);
});

test("a sandbox of another team, or one that does not run, runs nothing", async () => {
  const { server, sandbox } = api();
  const stranger = await server.makeKey("strangers who execute");
  const answer = await server.post(`/v1/sandboxes/${sandbox.id}/exec`, { cmd: "true" }, { key: stranger });
  expect([answer.status, answer.body]).toMatchObject([404, { error: { code: "sandbox_not_found" } }]);
  const other = await server.create();
  await server.call("DELETE", `/v1/sandboxes/${other.id}`);
  const late = await server.post(`/v1/sandboxes/${other.id}/exec`, { cmd: "true" });
  expect([late.status, late.body]).toMatchObject([409, { error: { code: "sandbox_state_conflict" } }]);
});

/** A request whose client can leave before it is answered. */
function begin(ask: ExecInput): http.ClientRequest {
  const { server, sandbox } = api();
  const request = http.request(`${server.url}/v1/sandboxes/${sandbox.id}/exec`, {
    method: "POST",
    headers: { "X-API-Key": server.key, "Content-Type": "application/json" },
  });
  request.on("error", () => undefined);
  request.end(JSON.stringify(ask));
  return request;
}

test("a client that leaves takes its command with it, and all that the command started", async () => {
  const { server, guest } = api();
  const request = begin({ cmd: "sh", args: ["-c", "sleep 1000 & wait"], timeout_seconds: 3_600 });
  const pids = await eventually(async () => {
    const { processes } = await guest.process().list({});
    const pid = processes[0]?.pid ?? 0;
    const children = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8");
    expect(children).not.toBe("");
    return [pid, Number(children)];
  });
  request.destroy();
  for (const pid of pids) await eventually(async () => expect(await alive(pid)).toBe(false));
  await eventually(() => expect(server.logged.join("")).toContain("the client left before its answer"));
  expect(server.logged.filter((line) => line.includes("request failed"))).toEqual([]);
});

test("many clients that leave at any moment leave no process", async () => {
  const sleep: ExecInput = { cmd: "sleep", args: ["1000"], stdin: "y".repeat(10_000), timeout_seconds: 3_600 };
  const requests = Array.from({ length: 30 }, () => begin(sleep));
  for (const [at, request] of requests.entries()) {
    if (at % 3 === 0) await new Promise((resolve) => setImmediate(resolve));
    request.destroy();
  }
  expect((await exec({ cmd: "echo", args: ["well"] })).stdout).toBe("well\n");
  await untilNoProcess();
});

test("a server that stops kills the commands whose end it can tell nobody any more", async () => {
  const { server, sandbox, guest } = api();
  const replica = await server.startReplica({ bounds: { drainMs: 100 } });
  const answer = fetch(`${replica.url}/v1/sandboxes/${sandbox.id}/exec`, {
    method: "POST",
    headers: { "X-API-Key": server.key, "Content-Type": "application/json" },
    body: JSON.stringify({ cmd: "sleep", args: ["1000"], timeout_seconds: 3_600 }),
  });
  const outcome = answer.then(
    ({ status }) => `answered ${status}`,
    () => "broke off",
  );
  await eventually(async () => expect((await guest.process().list({})).processes).toHaveLength(1));
  await replica.stop();
  expect(await outcome).toBe("broke off");
  await untilNoProcess();
});

test("a sandbox that dies meanwhile gives why it died", async () => {
  const { server } = api();
  const doomed = await server.create();
  const answer = server.post(`/v1/sandboxes/${doomed.id}/exec`, { cmd: "sleep", args: ["1000"] });
  await eventually(async () => expect((await api().guest.process().list({})).processes).toHaveLength(1));
  await server.agent.pause();
  server.agent.kill(doomed.uuid, "guest_panicked", "Kernel panic - not syncing: out of luck");
  await server.agent.resume();
  const { status, body } = await answer;
  // The guest that stands in for the dead one is alive.
  await endProcesses(api().guest);
  expect([status, body]).toMatchObject([
    500,
    { error: { code: "guest_panicked", message: "Kernel panic - not syncing: out of luck" } },
  ]);
});

test("a host agent that restarts meanwhile costs the command, and says so", async () => {
  const { server } = api();
  const answer = send({ cmd: "sleep", args: ["1000"] });
  await eventually(async () => expect((await api().guest.process().list({})).processes).toHaveLength(1));
  await server.agent.pause();
  await server.agent.resume();
  const { status, body } = await answer;
  expect([status, body]).toMatchObject([503, { error: { code: "connection_lost" } }]);
});
