/** Starting, stopping and killing the server of a machine. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:net";
import { readFile, rm, writeFile } from "node:fs/promises";
import { cliEntry } from "@wrenn/cli";
import { pollUntil, runUnchecked } from "@wrenn/system";
import { afterEach, describe, expect, it } from "vitest";
import { crash } from "./harness/guest.ts";
import { leftoversOf } from "./harness/leftovers.ts";
import { TestServer } from "./harness/test-server.ts";

const started: TestServer[] = [];

async function prepare(options: { port?: number } = {}): Promise<TestServer> {
  const server = await TestServer.prepare(options);
  started.push(server);
  return server;
}

afterEach(async () => {
  const left = await Promise.all(started.splice(0).map((server) => server.stop()));
  assert.deepEqual(left.flat(), []);
});

function json(output: Buffer): unknown {
  return JSON.parse(output.toString("utf8"));
}

describe("up", () => {
  it("in the background starts a server once, and status shows its parts", async () => {
    const server = await prepare();
    expect((await server.cli(["status"])).exitCode).toBe(3);
    const first = await server.cli(["up", "--detach", "--json"]);
    expect(json(first.stdout)).toMatchObject({ url: server.url, started: true });
    const second = await server.cli(["up", "--detach", "--json"]);
    expect(json(second.stdout)).toMatchObject({ url: server.url, started: false });
    const status = await server.cli(["status", "--json"]);
    expect(status.exitCode).toBe(0);
    expect(json(status.stdout)).toMatchObject({
      state: "healthy",
      url: server.url,
      engine: expect.stringMatching(/^qemu-(?:kvm|tcg)$/) as string,
      processes: ["supervisor", "postgres", "host-agent", "control-plane"].map(
        (name) => expect.objectContaining({ name }) as unknown,
      ),
    });
    // How the server was started is nothing by which a part would differ.
    const environment = await readFile(`/proc/${await server.pidOf("host-agent")}/environ`, "utf8");
    expect(environment).not.toContain("WRENN_SETUP");
    const third = await server.cli(["up"]);
    expect(third.exitCode).toBe(1);
    expect(third.stderr).toContain("(already_running)");
  });

  it("in the foreground says where it is, shows logs, and stops with Ctrl-C, read or not", async () => {
    const server = await prepare();
    const up = server.spawnCli(["up"]);
    const ready = await pollUntil(async () => (up.stdout.includes("host-agent") ? true : null), {
      timeoutMs: 60_000,
      intervalMs: 100,
    });
    expect(ready).toBe(true);
    await server.untilHealthy();
    up.child.stdout.destroy();
    up.child.kill("SIGINT");
    const result = await up.result();
    expect(result.exitCode).toBe(0);
    expect(result.stderr).toContain(`Wrenn is up at ${server.url}`);
    expect(await leftoversOf(server.layout.root)).toEqual([]);
  });

  it("refuses a port that is taken, says whose business that is, and leaves nothing running", async () => {
    const other = createServer();
    other.listen(0, "127.0.0.1");
    await once(other, "listening");
    const address = other.address();
    if (address === null || typeof address === "string") throw new Error("a TCP server has a port");
    const server = await prepare({ port: address.port });
    const result = await server.cli(["up", "--detach"]);
    other.close();
    expect(result.exitCode).toBe(1);
    expect(result.stderr).toContain("(port_taken)");
    expect(result.stderr).toContain("WRENN_LISTEN");
    expect(await leftoversOf(server.layout.root)).toEqual([]);
  });

  it("says that it must be root when it is not", async () => {
    const server = await prepare();
    // What a server of root's leaves there for root alone.
    for (const file of [server.layout.credentials, server.layout.processRecord("server")]) {
      await writeFile(file, "{}", { mode: 0o600 });
    }
    for (const verb of [["up"], ["run", "true"], ["ls"], ["status"], ["down"]]) {
      // A copy of Wrenn in a folder that is closed to others says nothing to them at all.
      const script = 'test -r "$1" || { echo closed; exit; }; exec "$0" "$@" 2>&1';
      const { stdout } = await runUnchecked("setpriv", [
        ...["--reuid=65534", "--regid=65534", "--clear-groups", "env", `WRENN_DIR=${server.layout.root}`],
        ...["WRENN_SETUP=never", "sh", "-c", script, process.execPath, cliEntry, ...verb],
      ]);
      expect(`${verb.join(" ")}: ${stdout}`).toMatch(/\(root_required\)|: closed$/m);
    }
  });

  it("after kill -9 of the supervisor adopts what it left, sandboxes included", async () => {
    const server = await prepare();
    await server.cli(["up", "--detach"]);
    const sandbox = await server.createSandbox();
    const before = await Promise.all(["postgres", "host-agent", "control-plane"].map((part) => server.pidOf(part)));
    process.kill(await server.pidOf("server"), "SIGKILL");
    const again = await server.cli(["up", "--detach", "--json"]);
    expect(json(again.stdout)).toMatchObject({ started: true });
    const after = await Promise.all(["postgres", "host-agent", "control-plane"].map((part) => server.pidOf(part)));
    expect(after).toEqual(before);
    const command = await sandbox.commands.start("true");
    expect((await command.wait()).exitCode).toBe(0);
  });

  it("starts also when the whole server was killed at once, and its sandboxes answer again", async () => {
    const server = await prepare();
    await server.cli(["up", "--detach"]);
    const sandbox = await server.createSandbox();
    for (const part of ["server", "control-plane", "host-agent", "postgres"]) {
      process.kill(await server.pidOf(part), "SIGKILL");
    }
    expect((await server.cli(["down", "--destroy"])).stderr).toContain("(host_unavailable)");
    expect(await server.cli(["up", "--detach"])).toMatchObject({ exitCode: 0 });
    const command = await sandbox.commands.start("true");
    expect((await command.wait()).exitCode).toBe(0);
  });
});

describe("doctor", () => {
  it("finds everything in place on a machine that runs sandboxes", async () => {
    const server = await prepare();
    const result = await server.cli(["doctor", "--json"]);
    expect(json(result.stdout)).toMatchObject({ ok: true });
    expect(result.exitCode).toBe(0);
  });
});

describe("down", () => {
  it("refuses while sandboxes run, unless told what to do with them", async () => {
    const server = await prepare();
    await server.cli(["up", "--detach"]);
    const sandbox = await server.createSandbox();
    const refused = await server.cli(["down"]);
    expect(refused.exitCode).toBe(1);
    expect(refused.stderr).toContain(sandbox.id);
    expect(refused.stderr).toContain("(sandboxes_running)");
    expect(await server.cli(["down", "--leave-running"])).toMatchObject({ exitCode: 0 });
    expect((await server.cli(["status"])).exitCode).toBe(3);
    await server.cli(["up", "--detach"]);
    const command = await sandbox.commands.start("true");
    expect((await command.wait()).exitCode).toBe(0);
    expect(await server.cli(["down", "--destroy"])).toMatchObject({ exitCode: 0 });
    expect(await leftoversOf(server.layout.root)).toEqual([]);
  });

  it("with --destroy also destroys what has died and could be recovered", async () => {
    const server = await prepare();
    await server.cli(["up", "--detach"]);
    const sandbox = await server.createSandbox();
    await crash(sandbox);
    expect(await server.cli(["down", "--destroy"])).toMatchObject({ exitCode: 0 });
    expect(await leftoversOf(server.layout.root)).toEqual([]);
  });
});

describe("run", () => {
  it("starts a server where there is none, and the second run finds it ready", async () => {
    const server = await prepare();
    // As on a machine where nothing has been started yet.
    await rm(server.layout.sandboxes, { recursive: true });
    const first = await server.cli(["run", "--", "echo", "one"]);
    expect(first.stdout.toString()).toBe("one\n");
    expect(first.stderr).toMatch(/^starting Wrenn … \d+\.\d s\n$/);
    const second = await server.cli(["run", "--", "echo", "two"]);
    expect(second).toMatchObject({ stderr: "", exitCode: 0 });
  });
});
