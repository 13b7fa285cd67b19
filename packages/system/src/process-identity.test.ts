import { describe, expect, it } from "vitest";
import { identifyProcess, isAlive, signalProcess, waitForExit } from "./process-identity.ts";
import { startDaemon } from "./subprocess.ts";

async function identityOf(pid: number) {
  const identity = await identifyProcess(pid);
  if (identity === null) throw new Error(`no process ${pid}`);
  return identity;
}

describe("process identity", () => {
  it("knows this process", async () => {
    expect(await isAlive(await identityOf(process.pid))).toBe(true);
  });

  it("never takes a reused pid, or one of another boot, for the process that was meant", async () => {
    const mine = await identityOf(process.pid);
    expect(await isAlive({ ...mine, startTime: "1" })).toBe(false);
    expect(await isAlive({ ...mine, bootId: "another boot" })).toBe(false);
  });

  it("does not signal a process that only has the same pid", async () => {
    const { pid } = await startDaemon("sleep", ["60"], { logFile: "/dev/null" });
    const identity = await identityOf(pid);
    await signalProcess({ ...identity, startTime: "1" }, "SIGKILL");
    expect(await isAlive(identity)).toBe(true);
    await signalProcess(identity, "SIGKILL");
    expect(await waitForExit(identity, 5_000)).toBe(true);
  });

  it("reads the start time of a program whose name has spaces and parentheses", async () => {
    const { pid } = await startDaemon("sh", ["-c", "printf ') S 1 (' > /proc/self/comm; exec sleep 60"], {
      logFile: "/dev/null",
    });
    const identity = await identityOf(pid);
    expect(identity.startTime).toMatch(/^\d+$/);
    await signalProcess(identity, "SIGKILL");
    expect(await waitForExit(identity, 5_000)).toBe(true);
  });
});
