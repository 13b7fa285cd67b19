import { spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { cliEntry } from "@wrenn/cli";
import { pollUntil } from "@wrenn/system";
import { describe, expect, it } from "vitest";
import type { CliProcess } from "./harness/cli.ts";
import { useServer } from "./harness/use-server.ts";

const server = useServer();

/** Starts a run and waits until its command has said that it is there. */
async function begin(script: string): Promise<CliProcess> {
  const cli = server().spawnCli(["run", "--", "sh", "-c", `echo ready; ${script}`]);
  await cli.untilWritten("ready");
  return cli;
}

describe("a run", () => {
  it("hands Ctrl-C to its command, and destroys the sandbox when that has ended", async () => {
    const cli = await begin("trap 'echo interrupted; exit 9' INT; sleep 1000 & wait");
    cli.child.kill("SIGINT");
    const result = await cli.result();
    expect(result.stdout.toString()).toBe("ready\ninterrupted\n");
    expect(result.exitCode).toBe(9);
    expect(await server().sandboxIds()).toEqual([]);
  });

  it("whose command ignores Ctrl-C ends at the second one", async () => {
    const cli = await begin("trap '' INT; while :; do sleep 1; done");
    cli.child.kill("SIGINT");
    await delay(300);
    expect(cli.child.exitCode).toBeNull();
    cli.child.kill("SIGINT");
    expect((await cli.result()).exitCode).toBe(130);
    expect(await server().sandboxIds()).toEqual([]);
  });

  it("ends with SIGTERM as its command does", async () => {
    const cli = await begin("exec sleep 1000");
    cli.child.kill("SIGTERM");
    expect((await cli.result()).exitCode).toBe(143);
    expect(await server().sandboxIds()).toEqual([]);
  });

  it("interrupted while its sandbox is being created leaves none", async () => {
    const cli = server().spawnCli(["run", "--", "true"]);
    const creating = await pollUntil(async () => ((await server().sandboxIds()).length > 0 ? true : null), {
      timeoutMs: 30_000,
      intervalMs: 50,
    });
    expect(creating).toBe(true);
    cli.child.kill("SIGINT");
    expect((await cli.result()).exitCode).toBe(130);
    expect(await server().untilNoSandboxes()).toEqual([]);
  });

  it("ends when nobody reads its output any more", async () => {
    const cli = spawn("sh", ["-c", `"$0" "$1" run -- yes | head -n 1`, process.execPath, cliEntry], {
      env: server().env,
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(cli, "exit");
    expect(await server().untilNoSandboxes()).toEqual([]);
  });

  it("that is killed leaves its sandbox to the server, which destroys it", async () => {
    const cli = await begin("sleep 1000");
    cli.child.kill("SIGKILL");
    await cli.result();
    expect(await server().untilNoSandboxes()).toEqual([]);
  });

  it("does not take its input from a terminal it was not given", async () => {
    const cli = server().spawnCli(["run", "--", "sh", "-c", "exit 5"]);
    // Its input stays open, and the command never reads it.
    expect((await cli.result()).exitCode).toBe(5);
  });
});
