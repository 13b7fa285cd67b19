/** The launcher `wrenn`, in a fresh copy of the repository: npm and the compiler are the real ones. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { findProgram, run, runUnchecked, type RunResult } from "@wrenn/system";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { repositoryRoot } from "../server/installation.ts";
import { untilSaid } from "./testing/output.ts";

const timeoutMs = 300_000;
let directory: string;
let copy: string;
let wrenn: string;

beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "wrenn-launcher-"));
  copy = path.join(directory, "copy of wrenn");
  await mkdir(copy);
  wrenn = path.join(copy, "wrenn");
  const listed = await run("git", ["ls-files", "--cached", "--others", "--exclude-standard"], { cwd: repositoryRoot });
  const archive = path.join(directory, "tree.tar");
  await run("tar", ["--create", "--ignore-failed-read", "--files-from=-", "--file", archive], {
    cwd: repositoryRoot,
    input: listed.stdout,
  });
  await run("tar", ["--extract", "--file", archive], { cwd: copy });
});

afterAll(async () => {
  await rm(directory, { recursive: true });
});

async function launch(...args: string[]): Promise<RunResult> {
  return runUnchecked(wrenn, args, { timeoutMs, cwd: "/" });
}

/** Starts it in a process group of its own and resolves when it has said the words. */
async function launchUntil(words: string): Promise<ChildProcess> {
  const child = spawn(wrenn, ["--version"], { detached: true, stdio: ["ignore", "ignore", "pipe"] });
  await untilSaid(child.stderr, words);
  return child;
}

async function killGroup(child: ChildProcess): Promise<void> {
  const exited = once(child, "exit");
  if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
  await exited;
}

describe("the launcher", { timeout: timeoutMs }, () => {
  it("completes an installation that was killed, once for two at once", async () => {
    await killGroup(await launchUntil("installing npm packages"));
    const both = await Promise.all([launch("--version"), launch("--version")]);
    for (const { exitCode, stdout, stderr } of both) {
      expect(stderr).not.toContain("failed");
      expect(exitCode).toBe(0);
      expect(stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
    }
    const said = both.map(({ stderr }) => stderr).join("");
    expect(said.match(/installing npm packages … \d+ s/g)).toHaveLength(1);
    expect(said.match(/compiling TypeScript … \d+ s/g)).toHaveLength(1);
    expect(said).toContain("waiting for it");
  });

  it("says nothing when nothing is to do, through a link from anywhere", async () => {
    const link = path.join(directory, "linked-wrenn");
    await symlink(wrenn, link);
    const { exitCode, stderr } = await runUnchecked(link, ["--version"], { cwd: "/" });
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
  });

  it("takes variables from the file beside it, not from one in the current folder, and the environment's own before both", async () => {
    const keys: unknown[] = [];
    // Stands in for a server: what counts is which one is asked, and with which key.
    const server = createServer((request, response) => {
      keys.push(request.headers["x-api-key"]);
      response.setHeader("Content-Type", "application/json").end('{"sandboxes":[],"next_cursor":null}');
    });
    await once(server.listen(0, "127.0.0.1"), "listening");
    const { port } = server.address() as AddressInfo;
    const elsewhere = await mkdtemp(path.join(directory, "elsewhere-"));
    await writeFile(path.join(elsewhere, ".env"), "WRENN_API_URL=http://127.0.0.1:1\nWRENN_API_KEY=not-this-one\n");
    const file = path.join(copy, ".env");
    await writeFile(file, `WRENN_API_URL="http://127.0.0.1:${port}" # quoted\nWRENN_API_KEY='of-the-file'\n`);
    for (const env of [{}, { WRENN_API_KEY: "of-the-environment" }]) {
      const options = { timeoutMs, cwd: elsewhere, env: { PATH: process.env["PATH"], ...env } };
      expect(await runUnchecked(wrenn, ["ls", "--json"], options)).toMatchObject({ exitCode: 0, stderr: "" });
    }
    expect(keys).toEqual(["of-the-file", "of-the-environment"]);
    await rm(file);
    server.close();
  });

  it("compiles again when a source is newer, or the output is gone", async () => {
    const future = new Date(Date.now() + 2_000);
    await utimes(path.join(copy, "packages/cli/src/main.ts"), future, future);
    expect((await launch("--version")).stderr).toContain("compiling TypeScript");
    await utimes(path.join(copy, "packages/cli/src/main.ts"), new Date(0), new Date(0));
    await rm(path.join(copy, "packages/cli/dist"), { recursive: true });
    expect((await launch("--version")).stderr).toContain("compiling TypeScript");
    expect(await launch("--version")).toMatchObject({ exitCode: 0, stderr: "" });
  });

  it("shows the compiler's words when it fails, and recovers", async () => {
    const file = path.join(copy, "packages/cli/src/broken.ts");
    await writeFile(file, "const broken: number = 'text';\nexport { broken };\n");
    const failure = await launch("--version");
    expect(failure.exitCode).toBe(1);
    expect(failure.stderr).toContain("packages/cli/src/broken.ts");
    await rm(file);
    expect((await launch("--version")).exitCode).toBe(0);
  });

  it("says which Node it needs when there is none, or an old one", async () => {
    const programs = await folderWith(["sh", "uname", "dirname", "readlink"]);
    const none = await runUnchecked(wrenn, ["--version"], { env: { PATH: programs } });
    expect(none).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("Node.js is not installed") });
    // Stands in for an old Node, which cannot be installed beside the one that runs this.
    await writeFile(path.join(programs, "node"), "#!/bin/sh\necho v20.18.1\n", { mode: 0o755 });
    const old = await runUnchecked(wrenn, ["--version"], { env: { PATH: programs } });
    expect(old).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("v20.18.1 is too old") });
    expect(old.stderr).toContain("nodejs.org");
  });

  it("says what is missing when two at once could not be kept apart", async () => {
    const programs = await folderWith(["sh", "uname", "dirname", "readlink", "node", "cmp", "find"]);
    await rm(path.join(copy, "node_modules/.wrenn"), { recursive: true });
    const { exitCode, stderr } = await runUnchecked(wrenn, ["--version"], { env: { PATH: programs } });
    expect({ exitCode, stderr }).toEqual({
      exitCode: 1,
      stderr: expect.stringContaining("apt-get install util-linux"),
    });
  });
});

/** A folder that has these programs and no other. */
async function folderWith(programs: readonly string[]): Promise<string> {
  const folder = await mkdtemp(path.join(directory, "programs-"));
  for (const program of programs) {
    const found = await findProgram(program);
    if (found === null) throw new Error(`${program} is not installed`);
    await symlink(found, path.join(folder, program));
  }
  return folder;
}
