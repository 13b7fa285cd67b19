/** What breaks while commands run, and what a user sees of it. */
import { setTimeout as delay } from "node:timers/promises";
import type { Sandbox } from "@wrenn/sdk";
import { pollUntil } from "@wrenn/system";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { shell } from "./harness/guest.ts";
import { useServer } from "./harness/use-server.ts";

const server = useServer();

describe("while a sandbox runs", () => {
  let sandbox: Sandbox;

  beforeAll(async () => {
    sandbox = await server().createSandbox();
  });
  afterAll(async () => {
    await sandbox.destroy();
  });

  /** A command that counts to five, one a second, and exits with 5. */
  async function count(): Promise<{ seen: () => string; wait: () => Promise<number>; reconnects: () => number }> {
    let seen = "";
    let reconnects = 0;
    const command = await sandbox.commands.start(
      ["/bin/sh", "-c", "for n in 1 2 3 4 5; do echo $n; sleep 1; done; exit 5"],
      {
        onStdout: (bytes) => void (seen += Buffer.from(bytes).toString()),
        onReconnect: () => void (reconnects += 1),
      },
    );
    return { seen: () => seen, wait: async () => (await command.wait()).exitCode, reconnects: () => reconnects };
  }

  it.each(["host-agent", "control-plane"])(
    "kill -9 of the %s ends neither the sandbox nor a command that is being followed",
    async (part) => {
      const pid = await server().pidOf(part);
      const counting = await count();
      await pollUntil(async () => (counting.seen().includes("1") ? true : null), { timeoutMs: 10_000 });
      process.kill(pid, "SIGKILL");
      expect(await counting.wait()).toBe(5);
      expect(counting.reconnects()).toBeGreaterThan(0);
      await server().untilHealthy();
      expect(await server().pidOf(part)).not.toBe(pid);
      expect(await shell(sandbox, "echo still here")).toMatchObject({ stdout: "still here\n", exitCode: 0 });
    },
  );

  it("kill -9 of PostgreSQL does not disturb a command, and the API is back by itself", async () => {
    const counting = await count();
    process.kill(await server().pidOf("postgres"), "SIGKILL");
    expect(await counting.wait()).toBe(5);
    expect(counting.seen()).toBe("1\n2\n3\n4\n5\n");
    await server().untilHealthy();
    expect((await sandbox.refresh()).status).toBe("running");
  });

  it("a client that goes away in the middle leaves the command running and the sandbox well", async () => {
    const stop = new AbortController();
    const script = "yes & sleep 2; kill $!; echo done > /tmp/finished";
    const command = await sandbox.commands.start(["/bin/sh", "-c", script], { signal: stop.signal });
    stop.abort();
    await expect(command.wait()).rejects.toThrow("abort");
    await delay(3_000);
    expect(await shell(sandbox, "cat /tmp/finished")).toMatchObject({ stdout: "done\n" });
  });
});

describe("run", () => {
  it("does not wait for ever for a command whose input broke off", async () => {
    const cli = server().spawnCli(["run", "--", "sh", "-c", "echo ready; cat > /dev/null"]);
    await pollUntil(async () => (cli.stdout.includes("ready") ? true : null), { timeoutMs: 60_000, intervalMs: 50 });
    const piece = Buffer.alloc(65_536);
    const feeding = setInterval(() => cli.child.stdin.write(piece), 20);
    await delay(500);
    process.kill(await server().pidOf("control-plane"), "SIGKILL");
    const result = await cli.result();
    clearInterval(feeding);
    expect(result.exitCode).toBe(125);
    expect(result.stderr).toContain("input could not be handed on");
    await server().untilHealthy();
    expect(await server().untilNoSandboxes()).toEqual([]);
  });

  it("says that the guest's kernel panicked, and exits with 125", async () => {
    const result = await server().cli([
      "run",
      "-u",
      "root",
      "--",
      "sh",
      "-c",
      "echo c > /proc/sysrq-trigger; sleep 100",
    ]);
    expect(result.stderr).toContain("(guest_panicked)");
    expect(result.exitCode).toBe(125);
    expect(await server().sandboxIds()).toEqual([]);
  });

  it("says that the guest ran out of memory when that ended the command", async () => {
    const eater = "chunks = []\nwhile True: chunks.append(bytes(range(256)) * 4096)";
    const result = await server().cli(["run", "--memory", "256M", "--", "python3", "-c", eater]);
    expect(result.stderr).toContain("(guest_out_of_memory)");
    expect(result.exitCode).toBe(137);
  });

  it("says that the sandbox powered itself off", async () => {
    const result = await server().cli([
      "run",
      "-u",
      "root",
      "--",
      "sh",
      "-c",
      "echo o > /proc/sysrq-trigger; sleep 100",
    ]);
    expect(result.exitCode).toBe(125);
    expect(result.stderr).toMatch(/\((?:guest_powered_off|vm_died)\)/);
    expect(await server().sandboxIds()).toEqual([]);
  });
});
