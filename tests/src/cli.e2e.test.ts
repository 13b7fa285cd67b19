import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { pollUntil, run } from "@wrenn/system";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Terminal } from "./harness/terminal.ts";
import { useServer } from "./harness/use-server.ts";

const server = useServer();
let here: string;
/** As a person has it: from one command's output to the next one's argument. */
let id: string;

beforeAll(async () => {
  here = await mkdtemp(path.join(tmpdir(), "wrenn-cli-"));
  const created = await server().cli(["create", "--memory", "256M", "--metadata", "of=cli"]);
  id = created.stdout.toString().trim();
});
afterAll(() => rm(here, { recursive: true, force: true }));

async function wrenn(...args: readonly string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await server().cli(args, { cwd: here });
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
  return stdout.toString();
}

describe("a person with a sandbox", () => {
  it("finds it again, and sees what it is", async () => {
    expect(await wrenn("ls", "-q", "--metadata", "of=cli")).toBe(`${id}\n`);
    expect(await wrenn("get", id.slice(-8))).toMatch(/^memory +256 MiB$/m);
  });

  it("runs commands in it that find each other's files, with their exit codes", async () => {
    await wrenn("exec", id, "--", "sh", "-c", "uname -r > kernel");
    expect(await wrenn("exec", id, "--", "cat", "kernel")).toMatch(/cloud-amd64\n$/);
    const failed = await server().cli(["exec", id.slice(-8), "--", "sh", "-c", "echo why >&2; exit 9"]);
    expect(failed).toMatchObject({ exitCode: 9, stderr: "why\n" });
  });

  it("works in a shell on a terminal, and leaves it with the shell's exit code", async () => {
    const terminal = new Terminal(["shell", id], { env: server().env, cols: 111, rows: 37 });
    await terminal.untilPrompt();
    terminal.type("stty size; tty\r");
    await terminal.untilShown(/37 111\r\n\/dev\/pts\/\d+/);
    terminal.resize(99, 21);
    terminal.type("sleep 1; stty size\r");
    await terminal.untilShown("21 99");
    terminal.type("exit 5\r");
    expect(await terminal.result()).toEqual({ exitCode: 5, signal: null, restored: true });
  });

  it("takes a project in and its results out", async () => {
    await run(
      "bash",
      ["-c", "mkdir -p project/src && echo 'seq 5 > out/result' > project/build && chmod +x project/build"],
      {
        cwd: here,
      },
    );
    const data = randomBytes(20_000_001);
    await writeFile(path.join(here, "project/src/data"), data);
    await wrenn("cp", "project", `${id}:`);
    await wrenn("exec", "-w", "/home/user/project", id, "--", "sh", "-c", "mkdir out && ./build && cp src/data out");
    await wrenn("cp", `${id}:project/out`, "results");
    expect(await readFile(path.join(here, "results/result"), "utf8")).toBe("1\n2\n3\n4\n5\n");
    expect((await readFile(path.join(here, "results/data"))).equals(data)).toBe(true);
  });

  it("leaves a command running, finds it, and ends it", async () => {
    const pid = (await wrenn("exec", "-d", id, "--", "sleep", "1000")).trim();
    expect(await wrenn("ps", id)).toContain(`${pid} `);
    await wrenn("kill", id, pid);
    const gone = await pollUntil(async () => ((await wrenn("ps", id)).includes(`${pid} `) ? null : true), {
      timeoutMs: 20_000,
      intervalMs: 100,
    });
    expect(gone).toBe(true);
  });

  it("reads its console, and follows it to the sandbox's end", async () => {
    // The kernel shows on the console what is as bad as an error, which 3 is.
    const print = (words: string): Promise<string> =>
      wrenn("exec", "-u", "root", id, "--", "sh", "-c", `echo '<3>${words}' > /dev/kmsg`);
    await print("hello once");
    expect(await wrenn("logs", id)).toMatch(/^\[ *\d+\.\d+\] hello once\r?$/m);
    const { text, offset, next_offset } = JSON.parse(await wrenn("logs", "--json", id)) as Record<string, unknown>;
    expect(text).toContain("hello once");
    expect(next_offset).toBeGreaterThan(Number(offset));
    const following = server().spawnCli(["logs", "-f", id]);
    await following.untilWritten("hello once");
    await print("hello again");
    await following.untilWritten("hello again");
    expect(await wrenn("rm", id.slice(-8))).toBe(`${id}\n`);
    expect(await following.result()).toMatchObject({ exitCode: 0, stderr: "" });
    expect(await wrenn("ls", "-q")).toBe("");
  });
});
