import { mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { repositoryRoot } from "@wrenn/cli";
import { Sandbox } from "@wrenn/sdk";
import { findProgram, run } from "@wrenn/system";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { useCli } from "../harness/api-cli.ts";
import { useApiServer } from "../harness/api-server.ts";

const api = useApiServer();
const cli = useCli(api);
let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "wrenn-completion-"));
  await symlink(path.join(repositoryRoot, "wrenn"), path.join(directory, "wrenn"));
  await writeFile(path.join(directory, "a file.txt"), "");
});

afterAll(() => rm(directory, { recursive: true }));

async function script(shell: string): Promise<string> {
  const { exitCode, stdout } = await cli().run(["completion", shell]);
  expect(exitCode).toBe(0);
  return stdout.toString();
}

let bashScript: Promise<string> | undefined;

/** A file with the script for bash. */
async function bashFile(): Promise<string> {
  const file = path.join(directory, "completion.bash");
  bashScript ??= script("bash");
  await writeFile(file, await bashScript);
  return file;
}

/** What a bash offers for a line that ends where the Tab key is pressed: asked of bash's own completion, as readline does. */
async function completions(...words: readonly string[]): Promise<string[]> {
  const file = await bashFile();
  const ask = `
    cd "$1"; PATH=$1:$PATH; source "$2"; shift 2
    compopt() { :; }
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
    "$(complete -p wrenn | sed 's/.*-F \\([^ ]*\\).*/\\1/')" wrenn "\${COMP_WORDS[COMP_CWORD]}" "\${COMP_WORDS[COMP_CWORD-1]}"
    printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout } = await run("bash", ["--norc", "-c", ask, "bash", directory, file, ...words], { env: cli().env });
  return stdout.split("\n").filter((line) => line !== "");
}

describe("in bash", () => {
  it("verbs are completed on a real terminal", async () => {
    const file = await bashFile();
    const terminal = cli().terminal(["--norc", "-i"], { program: ["bash"] });
    await terminal.untilPrompt();
    terminal.type(`source ${file}; echo loa''ded\r`);
    await terminal.untilShown("loaded");
    terminal.type("wrenn comp\t");
    await terminal.untilShown("wrenn completion ");
    terminal.type("z\t");
    await terminal.untilShown("wrenn completion zsh ");
    terminal.type("\u0015exit 0\r");
    expect(await terminal.result()).toMatchObject({ exitCode: 0 });
  });

  it("verbs, options and the values of both are completed", async () => {
    expect(await completions("wrenn", "s")).toEqual(["shell", "snapshot", "status", "setup"]);
    expect(await completions("wrenn", "exec", "--t")).toEqual(["--timeout", "--tty"]);
    expect(await completions("wrenn", "completion", "")).toEqual(["bash", "zsh", "fish"]);
    expect(await completions("wrenn", "kill", "-s", "SIGU")).toEqual(["SIGUSR1", "SIGUSR2"]);
    expect(await completions("wrenn", "kill", "--signal", "=", "SIGK")).toEqual(["SIGKILL"]);
    expect(await completions("wrenn", "no-such-verb", "")).toEqual([]);
  });

  it("sandboxes are completed where one is meant, and only there", async () => {
    const { id } = api().sandbox;
    expect(await completions("wrenn", "get", "sb-")).toContain(id);
    expect(await completions("wrenn", "exec", "-u", "root", "--env", "=", "A", "")).toContain(id);
    expect(await completions("wrenn", "rm", id, "")).toContain(id);
    expect(await completions("wrenn", "exec", "-u", "")).toEqual([]);
    expect(await completions("wrenn", "exec", id, "--", "")).toEqual([]);
    expect(await completions("wrenn", "exec", id, "ls", "-")).toEqual([]);
    expect(await completions("wrenn", "kill", id, "")).toEqual([]);
  });

  it("sandboxes are offered where their status makes sense, and snapshots where one is meant", async () => {
    const { server, sandbox } = api();
    const running = sandbox.id;
    const options = { apiUrl: server.url, apiKey: server.key };
    const other = await Sandbox.create(options);
    await other.createSnapshot({ name: "base" });
    await other.pause();
    const paused = other.id;
    expect(await completions("wrenn", "pause", "")).toEqual([running]);
    expect(await completions("wrenn", "resume", paused, "")).toEqual([paused]);
    expect(await completions("wrenn", "fork", "--count", "2", "")).toEqual([paused, running]);
    expect(await completions("wrenn", "recover", "")).toEqual([]);
    expect(await completions("wrenn", "recover", "--from", "")).toEqual(["disk", "last_pause"]);
    expect(await completions("wrenn", "create", "--template", "b")).toEqual(["base"]);
    expect(await completions("wrenn", "snapshot", "")).toEqual(["ls", "create", "rm"]);
    expect(await completions("wrenn", "snapshot", "rm", "")).toEqual(["base"]);
    expect(await completions("wrenn", "snapshot", "create", "")).toEqual([paused, running]);
    expect(await completions("wrenn", "snapshot", "create", running, "")).toEqual([]);
    expect(await completions("wrenn", "snapshot", "ls", "--q")).toEqual(["--quiet"]);
  });

  it("the ends of a copy are sandboxes and files", async () => {
    const { id } = api().sandbox;
    expect(await completions("wrenn", "cp", "")).toEqual(expect.arrayContaining([`${id}:`, "a\\ file.txt"]));
    expect(await completions("wrenn", "cp", "a\\ file.txt", "sb-")).toContain(`${id}:`);
  });
});

/** Checks by the shell itself, of those that are installed. */
const checks = { bash: ["-n"], zsh: ["-n"], fish: ["--no-execute"] } as const;

it.each(Object.entries(checks))("the script for %s is one, as far as it can be asked here", async (shell, check) => {
  const text = await script(shell);
  expect(text).toContain("wrenn");
  expect(text).toMatch(/completion/);
  if ((await findProgram(shell)) === null) return;
  const file = path.join(directory, `completion.${shell}`);
  await writeFile(file, text);
  expect(await run(shell, [...check, file])).toMatchObject({ stderr: "" });
});
