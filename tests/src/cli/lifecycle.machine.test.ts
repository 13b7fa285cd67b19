/** `wrenn pause`, `resume`, `fork`, `recover` and `snapshot` against the real server and a simulated host. */
import { sandboxSchema, snapshotSchema } from "@wrenn/contract";
import { type CreateSandboxOptions, Sandbox } from "@wrenn/sdk";
import { eventually } from "@wrenn/control-plane/testing";
import { afterEach, describe, expect, it } from "vitest";
import { useCli } from "../harness/api-cli.ts";
import { useApiServer } from "../harness/api-server.ts";

const api = useApiServer();
const cli = useCli(api);

async function run(...args: readonly string[]): Promise<{ exitCode: number | null; stdout: string; stderr: string }> {
  const { exitCode, stdout, stderr } = await cli().run(args);
  return { exitCode, stdout: stdout.toString(), stderr };
}

/** The command line takes its time to start: what is not tested here is done without it. */
const options = () => ({ apiUrl: api().server.url, apiKey: api().server.key });

async function create(wanted: CreateSandboxOptions = {}): Promise<Sandbox> {
  return Sandbox.create({ ...options(), ...wanted });
}

async function lines(...args: readonly string[]): Promise<string[]> {
  return (await run(...args)).stdout.split("\n").slice(0, -1);
}

afterEach(async () => {
  for await (const { id } of Sandbox.list(options())) {
    if (id !== api().sandbox.id) await Sandbox.destroy(id, options());
  }
});

describe("pause and resume", () => {
  it("work by parts of ids, and twice; ls and get show since when", async () => {
    const sandbox = await create();
    const { id } = sandbox;
    expect(await run("pause", id.slice(-8))).toEqual({ exitCode: 0, stdout: `${id}\n`, stderr: "" });
    expect(await run("pause", id)).toMatchObject({ exitCode: 0 });
    expect((await sandbox.refresh()).status).toBe("paused");
    expect((await run("get", id)).stdout).toMatch(/^status +paused\npaused +since \d{4}-.*Z \(\d+ s\)$/m);
    expect((await run("ls")).stdout).toMatch(new RegExp(`^${id} +paused \\(for \\d+ s\\) `, "m"));
    expect((await run("exec", id, "--", "true")).stderr).toContain("Resume it first");
    expect(await run("resume", id)).toEqual({ exitCode: 0, stdout: `${id}\n`, stderr: "" });
    expect((await run("get", id)).stdout).toMatch(/^backend +fetched page by page/m);
    expect((await sandbox.refresh()).status).toBe("running");
  });

  it("of several try all, and say what failed of each", async () => {
    const [{ id: one }, { id: two }] = [await create(), await create()];
    const missing = "sb-01890000-0000-7000-8000-000000000000";
    const paused = await run("pause", "--json", one, missing, two);
    expect(paused.exitCode).toBe(1);
    expect(JSON.parse(paused.stdout)).toMatchObject({
      paused: [one, two],
      failed: [{ id: missing, error: { code: "sandbox_not_found" } }],
    });
    const resumed = await run("resume", missing, two, "nonsense");
    expect(resumed).toMatchObject({ exitCode: 1, stdout: `${two}\n` });
    expect(resumed.stderr).toMatch(new RegExp(`^wrenn: ${missing}: .*\n.*\\(sandbox_not_found\\)\nwrenn: nonsense: `));
    expect(await run("pause")).toMatchObject({ exitCode: 2 });
  });

  it("interrupted say that the server goes on, which it does, and what was not begun", async () => {
    const { agent } = api().server;
    const sandbox = await create();
    const { id } = sandbox;
    let release = (): void => undefined;
    const asked = new Promise<void>((resolve) => {
      agent.beforePause = () => {
        resolve();
        return new Promise((go) => (release = go));
      };
    });
    const pausing = cli().spawn(["pause", id, "another"]);
    await asked;
    pausing.child.kill("SIGINT");
    const { exitCode, stderr } = await pausing.result();
    expect(exitCode).toBe(130);
    expect(stderr).toBe(`wrenn: interrupted; the server goes on pausing ${id}\nwrenn: not begun: another\n`);
    agent.beforePause = () => Promise.resolve();
    release();
    await eventually(async () => expect((await sandbox.refresh()).status).toBe("paused"));
  });

  it("end a command that is followed with the reason, and leave it alone", async () => {
    const sandbox = await create();
    const { id } = sandbox;
    const command = cli().spawn(["exec", id, "--", "sh", "-c", "echo ready; sleep 600"]);
    await command.untilWritten("ready");
    await sandbox.pause();
    const { exitCode, stderr } = await command.result();
    expect(exitCode).toBe(125);
    expect(stderr).toContain("(sandbox_paused)");
    await sandbox.resume();
    const left = await sandbox.commands.list();
    expect(left).toHaveLength(1);
    for (const { pid } of left) await sandbox.commands.kill(pid);
  });
});

describe("fork", () => {
  it("prints the ids of the copies, which have what was asked for", async () => {
    const { id } = await create({ metadata: { job: "1" } });
    const copies = await lines("fork", "--count", "2", "--metadata", "job=2", "--timeout", "1m", id.slice(-8));
    expect(copies).toHaveLength(2);
    const forked = await run("fork", "--json", copies[0] ?? "");
    const { sandboxes } = JSON.parse(forked.stdout) as { sandboxes: unknown[] };
    expect(sandboxes.map((body) => sandboxSchema.strict().parse(body))).toMatchObject([
      { status: "running", metadata: { job: "2" }, timeout_seconds: 60 },
    ]);
    expect((await run("fork", "--count", "51", id)).stderr).toContain("(invalid_request)");
    expect(await run("fork", "--count", "many", id)).toMatchObject({ exitCode: 2 });
  });
});

describe("snapshot", () => {
  it("takes, lists, replaces and deletes them, and create starts from them", async () => {
    const { id } = await create({ memoryMib: 256 });
    expect(await run("snapshot", "create", id.slice(-8), "base")).toEqual({
      exitCode: 0,
      stdout: "base\n",
      stderr: "",
    });
    expect((await run("snapshot", "create", id, "base")).stderr).toContain("(snapshot_name_taken)");
    const replaced = await run("snapshot", "create", "--overwrite", "--json", id, "base");
    expect(snapshotSchema.strict().parse(JSON.parse(replaced.stdout))).toMatchObject({ name: "base", memory_mib: 256 });
    const [unnamed = ""] = await lines("snapshot", "create", id);
    expect(await lines("snapshot", "ls", "-q")).toEqual([unnamed, "base"]);
    const [header, , row] = await lines("snapshot", "ls");
    expect(header).toMatch(/^NAME +VCPUS +MEMORY +DISK +SIZE +AGE +SANDBOX$/);
    expect(row).toMatch(new RegExp(`^base +1 +256 MiB +5120 MiB +30\\.0 MiB +\\d+ s +${id}$`));
    const other = await run("create", "--json", "--template", "base", "--on-timeout", "destroy");
    expect(JSON.parse(other.stdout)).toMatchObject({ template: "base", memory_mib: 256, on_timeout: "destroy" });
    expect((await run("create", "--template", "base", "--memory", "1G")).stderr).toContain("(invalid_request)");
    const removed = await run("snapshot", "rm", "--json", "base", "base", unnamed);
    expect(removed.exitCode).toBe(1);
    expect(JSON.parse(removed.stdout)).toMatchObject({
      deleted: ["base", unnamed],
      failed: [{ name: "base", error: { code: "snapshot_not_found" } }],
    });
    expect(JSON.parse((await run("snapshot", "ls", "--json")).stdout)).toEqual({ snapshots: [] });
  });
});

describe("recover", () => {
  it("starts what has died again, as ls and get say how", async () => {
    const sandbox = await create();
    const { id } = sandbox;
    api().server.agent.kill(id.slice("sb-".length), "guest_panicked", "It panicked.", ["disk", "last_pause"]);
    await eventually(async () => expect((await sandbox.refresh()).status).toBe("error"));
    const { stdout, stderr } = await run("ls");
    expect(stdout).toMatch(new RegExp(`^${id} +error \\(guest_panicked\\) `, "m"));
    const commands = ["disk", "last_pause"].map((source) => `\`wrenn recover ${id} --from ${source}\``);
    expect(stderr).toBe(`wrenn: ${id} has died; to start it again: ${commands.join(" or ")}\n`);
    expect((await run("get", id)).stdout).toMatch(
      new RegExp(`^recover +wrenn recover ${id} --from disk +# boots`, "m"),
    );
    expect(await run("recover", id)).toMatchObject({ exitCode: 2 });
    expect((await run("pause", id)).stderr).toContain("(sandbox_died)");
    expect(await run("recover", "--from", "disk", id)).toEqual({ exitCode: 0, stdout: `${id}\n`, stderr: "" });
    expect(await sandbox.refresh()).toMatchObject({ status: "running", recoverable: [] });
    expect((await run("recover", "--from", "disk", id)).exitCode).toBe(1);
  });
});
