import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { pollUntil } from "./poll.ts";
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

  it("sees and kills a process whose first thread has ended while another runs on", async () => {
    const program = `
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
ctypes.CDLL(None).pthread_exit(None)`;
    const { pid } = await startDaemon("python3", ["-c", program], { logFile: "/dev/null" });
    const identity = await identityOf(pid);
    const leaderEnded = await pollUntil(
      async () => ((await readFile(`/proc/${pid}/stat`, "utf8")).includes(") Z ") ? true : null),
      { timeoutMs: 10_000 },
    );
    expect(leaderEnded).toBe(true);
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
