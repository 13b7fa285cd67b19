import { mkdtemp, readFile, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { pollUntil } from "./poll.ts";
import { endProcess, identifyProcess, isAlive } from "./process-identity.ts";
import { findProgram, run, runUnchecked, startDaemon } from "./subprocess.ts";

const scratch = await mkdtemp(path.join(os.tmpdir(), "wrenn-subprocess-"));
afterAll(() => rm(scratch, { recursive: true }));

describe("run", () => {
  it("returns both outputs apart", async () => {
    expect(await run("sh", ["-c", "echo out; echo err >&2"])).toEqual({
      exitCode: 0,
      stdout: "out\n",
      stderr: "err\n",
    });
  });

  it("passes arguments as they are, never through a shell", async () => {
    const { stdout } = await run("printf", ["%s", "$(id); `id` ; 'x'"]);
    expect(stdout).toBe("$(id); `id` ; 'x'");
  });

  it("feeds input larger than a pipe", async () => {
    const input = "x".repeat(1_000_000);
    expect((await run("cat", [], { input })).stdout).toBe(input);
  });

  it("does not fail because a program does not read its input", async () => {
    expect((await run("true", [], { input: "x".repeat(1_000_000) })).exitCode).toBe(0);
  });

  it("says which program failed, how, and in its own words", async () => {
    await expect(run("sh", ["-c", "echo no room >&2; exit 3"])).rejects.toMatchObject({
      code: "subprocess_failed",
      message: expect.stringMatching(/exited with 3: no room$/) as string,
    });
  });

  it("says which program is not installed", async () => {
    await expect(run("no-such-program", [])).rejects.toMatchObject({
      code: "dependency_missing",
      details: { program: "no-such-program" },
    });
  });

  it("kills the whole process group at its deadline", async () => {
    const pidFile = path.join(scratch, "grandchild");
    await expect(
      run("sh", ["-c", 'sleep 60 & echo $! > "$1"; wait', "sh", pidFile], { timeoutMs: 500 }),
    ).rejects.toThrow("did not end within 500 ms");
    const grandchild = Number(await readFile(pidFile, "utf8"));
    expect(
      await pollUntil(async () => ((await identifyProcess(grandchild)) === null ? true : null), { timeoutMs: 5_000 }),
    ).toBe(true);
  });

  it("ends when it is aborted", async () => {
    const abort = new AbortController();
    const running = runUnchecked("sleep", ["60"], { signal: abort.signal });
    abort.abort(new Error("left"));
    await expect(running).rejects.toThrow("left");
  });

  it("reports lines as they come, the last one without a line break too", async () => {
    const lines: string[] = [];
    await run("printf", ["a\\nb\\nc"], { onLine: (line) => lines.push(line) });
    expect(lines).toEqual(["a", "b", "c"]);
  });
});

describe("startDaemon", () => {
  it("starts a process in its own session and tells how it ended", async () => {
    const logFile = path.join(scratch, "daemon.log");
    const { pid, exited } = await startDaemon("sh", ["-c", "echo up; exec sleep 60"], { logFile });
    const identity = await identifyProcess(pid);
    if (identity === null) throw new Error("the daemon is not there");
    const session = (await readFile(`/proc/${pid}/stat`, "utf8")).split(" ")[5];
    expect(session).toBe(String(pid));
    const written = await pollUntil(async () => ((await readFile(logFile, "utf8")) === "up\n" ? true : null), {
      timeoutMs: 10_000,
      intervalMs: 10,
    });
    expect(written).toBe(true);
    await endProcess(identity, 5_000);
    expect(await isAlive(identity)).toBe(false);
    expect(await exited).not.toBe(0);
  });

  it("says that a program is not installed", async () => {
    await expect(startDaemon("no-such-program", [], { logFile: path.join(scratch, "x.log") })).rejects.toMatchObject({
      code: "dependency_missing",
    });
  });
});

describe("findProgram", () => {
  it("finds what is on PATH and nothing else", async () => {
    expect(await findProgram("sh")).toMatch(/\/sh$/);
    expect(await findProgram("no-such-program")).toBeNull();
  });
});
