import { sandboxSchema } from "@wrenn/contract";
import { afterEach, describe, expect, it } from "vitest";
import { useCli } from "../harness/api-cli.ts";
import { useApiServer } from "../harness/api-server.ts";

const api = useApiServer();
const cli = useCli(api);

const run = (args: readonly string[], options: Parameters<ReturnType<typeof cli>["run"]>[1] = {}) =>
  cli().run(args, options);

async function ids(...args: readonly string[]): Promise<string[]> {
  const { stdout } = await run(["ls", "-q", ...args]);
  return stdout.toString().split("\n").slice(0, -1);
}

async function create(...args: readonly string[]): Promise<string> {
  const result = await run(["create", ...args]);
  expect(result).toMatchObject({ exitCode: 0, stderr: "" });
  return result.stdout.toString().trim();
}

// The host has room for a few.
afterEach(async () => {
  const made = (await ids()).filter((id) => id !== api().sandbox.id);
  if (made.length > 0) await run(["rm", ...made]);
});

describe("create", () => {
  it("prints the id, and makes what was asked for", async () => {
    const options = ["--vcpus", "2", "--memory", "256M", "--disk", "6G", "--timeout", "30m", "--on-timeout", "destroy"];
    const id = await create(
      "--template",
      "minimal",
      ...options,
      "-e",
      "A=1",
      "--metadata",
      "job=42",
      "--metadata",
      "note=a=b c",
    );
    expect(id).toMatch(/^sb-[0-9a-f-]{36}$/);
    const { stdout } = await run(["get", "--json", id]);
    expect(sandboxSchema.strict().parse(JSON.parse(stdout.toString()))).toMatchObject({
      id,
      status: "running",
      template: "minimal",
      vcpus: 2,
      memory_mib: 256,
      disk_mib: 6_144,
      timeout_seconds: 1_800,
      on_timeout: "destroy",
      metadata: { job: "42", note: "a=b c" },
    });
  });

  it("--json prints the sandbox", async () => {
    const { stdout } = await run(["create", "--json"]);
    expect(sandboxSchema.strict().parse(JSON.parse(stdout.toString()))).toMatchObject({ status: "running" });
  });

  it("says what is wrong, with its code, and exits with 1; and with 2 where it was used wrongly", async () => {
    const refused = await run(["create", "--template", "no-such-template"]);
    expect(refused).toMatchObject({ exitCode: 1 });
    expect(refused.stderr).toMatch(/^wrenn: .*\n {7}.* \(template_not_found\)\n$/);
    const wrong = await run(["create", "--memory", "lots"]);
    expect(wrong).toMatchObject({ exitCode: 2 });
    expect(wrong.stderr).toContain("Give a size");
  });

  it("interrupted leaves no sandbox behind", async () => {
    const before = await ids();
    const { agent } = api().server;
    let release: () => void = () => undefined;
    const asked = new Promise<void>((resolve) => {
      agent.beforeCreate = () => {
        resolve();
        return new Promise((go) => (release = go));
      };
    });
    const creating = cli().spawn(["create"]);
    await asked;
    creating.child.kill("SIGINT");
    await creating.untilWritten("interrupted", "stderr");
    agent.beforeCreate = () => Promise.resolve();
    release();
    const result = await creating.result();
    expect(result.exitCode).toBe(130);
    expect(result.stdout.toString()).toBe("");
    expect(await ids()).toEqual(before);
  });
});

describe("ls", () => {
  it("shows a line for each sandbox, without colours where nobody sees them", async () => {
    const id = await create();
    const { stdout } = await run(["ls"], { env: { TERM: "xterm-256color" } });
    const [header, ...lines] = stdout.toString().trimEnd().split("\n");
    expect(header).toMatch(/^ID +STATUS +TEMPLATE +VCPUS +MEMORY +BACKEND +AGE$/);
    expect(lines[0]).toMatch(new RegExp(`^${id} +running +minimal +1 +512 MiB +file +\\d+ \\w+$`));
    expect(lines.length).toBe((await ids()).length);
  });

  it("has colours on a terminal, unless NO_COLOR is set", async () => {
    const coloured = cli().terminal(["ls"], { cols: 200 });
    await coloured.result();
    expect(coloured.shown).toContain("\u001B[32mrunning\u001B[39m");
    const plain = cli().terminal(["ls"], { cols: 200, env: { NO_COLOR: "1" } });
    await plain.result();
    expect(plain.shown).toContain("running");
    expect(plain.shown).not.toContain("\u001B");
  });

  it("finds by status, template and metadata", async () => {
    const id = await create("--metadata", "find=me", "--metadata", "and=me");
    expect(await ids("--metadata", "find=me")).toEqual([id]);
    expect(await ids("--metadata", "find=me", "--metadata", "and=not")).toEqual([]);
    expect(await ids("--status", "running,error", "--template", "minimal")).toContain(id);
    expect(await ids("--status", "error")).toEqual([]);
    await run(["rm", id]);
    expect(await ids()).not.toContain(id);
    expect(await ids("--all")).toContain(id);
    const wrong = await run(["ls", "--status", "asleep"]);
    expect(wrong.exitCode).toBe(1);
    expect(wrong.stderr).toContain("Give one of pending, starting, running");
  });

  it("--json prints every sandbox whole", async () => {
    const { stdout } = await run(["ls", "--json"]);
    const { sandboxes } = JSON.parse(stdout.toString()) as { sandboxes: unknown[] };
    expect(sandboxes.map((body) => sandboxSchema.strict().parse(body).id)).toEqual(await ids());
  });
});

describe("get", () => {
  it("shows what there is to know, by any part of the id that says enough", async () => {
    const id = await create("--metadata", "note=odd \u001B[2J");
    const { stdout } = await run(["get", id.slice(-8)]);
    expect(stdout.toString()).toMatch(new RegExp(`^id +${id}\nstatus +running\n`));
    expect(stdout.toString()).toMatch(/^metadata +note=odd \\u001b\[2J$/m);
  });

  it("names what it does not find", async () => {
    const missing = await run(["get", "--json", "sb-01890000-0000-7000-8000-000000000000"]);
    expect(missing.exitCode).toBe(1);
    expect(JSON.parse(missing.stdout.toString())).toMatchObject({ error: { code: "sandbox_not_found" } });
  });
});

describe("rm", () => {
  it("destroys several by parts of their ids, tries all, and says which failed", async () => {
    const [one, two] = [await create(), await create()];
    const result = await run(["rm", "--json", one.slice(-8), "tpl-nonsense", two]);
    expect(result.exitCode).toBe(1);
    expect(JSON.parse(result.stdout.toString())).toMatchObject({
      destroyed: [one, two],
      failed: [{ id: "tpl-nonsense", error: { code: "invalid_id" } }],
    });
  });

  it.each(["n\r", "\r", "\u0003", "\u0004"])(
    "--all asks on a terminal, and takes no for an answer: %j",
    async (answer) => {
      const id = await create();
      const terminal = cli().terminal(["rm", "--all"]);
      await terminal.untilShown(/Destroy \d+ sandboxes with all they hold\? \[y\/N\] /);
      terminal.type(answer);
      expect(await terminal.result()).toMatchObject({ exitCode: 1, restored: true });
      expect(terminal.shown).toContain("nothing was destroyed");
      expect(await ids()).toContain(id);
    },
  );

  it("--all does nothing where it cannot ask, unless told --yes", async () => {
    const refused = await run(["rm", "--all"]);
    expect(refused.exitCode).toBe(1);
    expect(refused.stderr).toContain("--yes");
    // Of a team of its own, so that other tests keep theirs.
    const env = { WRENN_API_KEY: await api().server.makeKey("doomed") };
    await run(["create"], { env });
    await run(["create"], { env });
    expect(await run(["rm", "--all", "--yes"], { env })).toMatchObject({ exitCode: 0 });
    expect((await run(["ls", "-q"], { env })).stdout.toString()).toBe("");
  });

  it("without any id is used wrongly", async () => {
    expect(await run(["rm"])).toMatchObject({ exitCode: 2 });
    expect(await run(["rm", "--all", "0123"])).toMatchObject({ exitCode: 2 });
  });
});

describe("a server that is away", () => {
  it.each([
    ["ls"],
    ["get", "0123"],
    ["rm", "0123"],
    ["ps", "0123"],
    ["logs", "0123"],
    ["cp", "/etc/hosts", "0123:x"],
    ["pause", "0123"],
  ])("%s says so, and exits with 1", async (...args) => {
    const result = await run(args, { env: { WRENN_API_URL: "http://127.0.0.1:1" } });
    expect(result.exitCode).toBe(1);
    expect(result.stderr).toContain("(server_unreachable)");
  });
});

describe("help", () => {
  it("of every verb has an example", async () => {
    const { stdout } = await run(["--help"]);
    const verbs = [...stdout.toString().matchAll(/^ {2}(\w+) /gm)].map(([, verb = ""]) => verb);
    expect(verbs).toEqual(expect.arrayContaining(["create", "exec", "shell", "cp", "watch", "completion", "up"]));
    for (const verb of verbs.filter((name) => name !== "help")) {
      const help = await run([verb, "--help"]);
      expect(help.exitCode).toBe(0);
      expect(help.stdout.toString()).toMatch(new RegExp(`\nExamples:\n  \\$ .*wrenn ${verb}`));
    }
    for (const verb of ["ls", "create", "rm"]) {
      const help = await run(["snapshot", verb, "--help"]);
      expect(help.stdout.toString()).toMatch(new RegExp(`\nExamples:\n  \\$ .*wrenn snapshot ${verb}`));
    }
  });
});
