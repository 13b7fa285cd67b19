/** The whole bootstrap, for real: packages, cargo, kernel, root filesystem. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { minimalTemplateId, platformTeamId, WrennError } from "@wrenn/contract";
import { type Layout, layoutFromEnvironment, run, runUnchecked, type RunResult, wrennLayout } from "@wrenn/system";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { repositoryRoot } from "../server/installation.ts";
import { runDoctor } from "../doctor/index.ts";
import { runSetup } from "./index.ts";
import { untilSaid } from "./testing/output.ts";

const timeoutMs = 400_000;
const cli = path.join(repositoryRoot, "packages/cli/dist/main.js");
const machine = layoutFromEnvironment();
let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "wrenn-setup-"));
  await setUp(machine);
}, timeoutMs);

afterAll(async () => {
  await rm(directory, { recursive: true });
});

/** Runs it in this process and returns what it showed. */
async function setUp(layout: Layout): Promise<string> {
  let shown = "";
  const output = {
    write: (text: string) => {
      shown += text;
    },
  };
  await runSetup({ layout, repositoryRoot, output });
  return shown;
}

async function failureOf(layout: Layout): Promise<WrennError> {
  try {
    await setUp(layout);
  } catch (error) {
    if (error instanceof WrennError) return error;
    throw error;
  }
  throw new Error("it succeeded");
}

function environment(layout: Layout): NodeJS.ProcessEnv {
  return { ...process.env, WRENN_DIR: layout.root };
}

async function startSetup(layout: Layout, words: string): Promise<ChildProcess> {
  const child = spawn(process.execPath, [cli, "setup"], {
    env: environment(layout),
    stdio: ["ignore", "ignore", "pipe"],
  });
  await untilSaid(child.stderr, words);
  return child;
}

async function finishSetup(layout: Layout): Promise<RunResult> {
  return runUnchecked(process.execPath, [cli, "setup"], { env: environment(layout), timeoutMs });
}

/** Names below a directory that only a build in progress has. */
async function unfinished(layout: Layout): Promise<string[]> {
  const names = await readdir(layout.root, { recursive: true });
  return names.filter((name) => /\.building-|\.tmp$/.test(name));
}

async function processesIn(layout: Layout): Promise<number> {
  const { stdout } = await run("ps", ["-eo", "args"]);
  return stdout.split("\n").filter((line) => line.includes(layout.root) && !line.includes(cli)).length;
}

describe("setting up this machine", { timeout: timeoutMs }, () => {
  it("says nothing when all is done", async () => {
    expect(await setUp(machine)).toBe("");
  });

  it("is completed by the next run after it was interrupted or killed, and waited for by another", async () => {
    const layout = wrennLayout(path.join(directory, "interrupted"));
    // What takes long and is tested elsewhere: the same compiled agent, the same downloaded packages.
    await mkdir(layout.cache, { recursive: true });
    await cp(machine.bin, layout.bin, { recursive: true });
    await cp(path.join(machine.cache, "packages"), path.join(layout.cache, "packages"), { recursive: true });

    const interrupted = await startSetup(layout, "Building the root filesystem");
    interrupted.kill("SIGINT");
    expect(await once(interrupted, "exit")).toEqual([null, "SIGINT"]);
    expect(await processesIn(layout)).toBe(0);

    const killed = await startSetup(layout, "Building the root filesystem");
    killed.kill("SIGKILL");
    await once(killed, "exit");

    const both = await Promise.all([finishSetup(layout), finishSetup(layout)]);
    for (const { exitCode, stderr } of both) expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
    const said = both.map(({ stderr }) => stderr).join("");
    expect(said.match(/Building the root filesystem/g)).toHaveLength(1);
    expect(said).not.toContain("kernel from its package");
    expect(said).toContain("waiting for it");
    expect(await unfinished(layout)).toEqual([]);

    const template = layout.template(platformTeamId, minimalTemplateId);
    const { rootfs } = JSON.parse(await readFile(template.manifest, "utf8")) as { rootfs: string };
    await run("e2fsck", ["-fn", template.rootfs(rootfs)]);
    const { blocks, size } = await stat(template.rootfs(rootfs));
    expect(size).toBe(5_120 * 1_048_576);
    expect(blocks * 512).toBeLessThan(400 * 1_048_576);
    expect((await finishSetup(layout)).stderr).not.toMatch(/\[\d\/\d\]/);
  });

  it("keeps other users out of what it makes", async () => {
    expect((await stat(machine.root)).mode & 0o777).toBe(0o711);
    for (const secret of [machine.run, machine.sandboxes, machine.logs]) {
      expect((await stat(secret)).mode & 0o022).toBe(0);
    }
  });

  it("names root when it is not root and something is to do", async () => {
    // The effective user alone, so that this process can come back.
    process.seteuid?.(65_534);
    try {
      const failure = await failureOf(wrennLayout("/var/lib/wrenn-of-nobody"));
      expect(failure).toMatchObject({ code: "root_required", suggestion: expect.stringContaining("sudo") });
    } finally {
      process.seteuid?.(0);
    }
  });

  it("says so before it begins when the disk is too small", async () => {
    const place = path.join(directory, "small");
    await mkdir(place);
    await run("mount", ["-t", "tmpfs", "-o", "size=64m", "tmpfs", place]);
    try {
      const failure = await failureOf(wrennLayout(path.join(place, "wrenn")));
      expect(failure).toMatchObject({ code: "host_out_of_disk", message: expect.stringContaining(place) });
      expect(await readdir(place)).toEqual([]);
    } finally {
      await run("umount", [place]);
    }
  });
});

describe("the doctor", () => {
  it("finds nothing wrong with a machine that is set up", async () => {
    const report = await runDoctor(machine);
    expect(report.checks.filter(({ status }) => status === "failed")).toEqual([]);
    expect(report.ok).toBe(true);
  });

  it("names set-up where nothing has been made yet", async () => {
    const report = await runDoctor(wrennLayout(path.join(directory, "empty")));
    expect(report.ok).toBe(false);
    for (const name of ["kernel", "template"]) {
      expect(report.checks).toContainEqual(expect.objectContaining({ name, status: "failed", remedy: "wrenn setup" }));
    }
  });

  it("explains a missing engine and a path too long for sockets", async () => {
    process.env["WRENN_QEMU_BIN"] = "/nonexistent/qemu";
    try {
      const report = await runDoctor(wrennLayout(`/var/lib/${"long".repeat(20)}`));
      for (const name of ["qemu", "directory"]) {
        expect(report.checks).toContainEqual(
          expect.objectContaining({ name, status: "failed", remedy: expect.stringMatching(/\S/) }),
        );
      }
    } finally {
      delete process.env["WRENN_QEMU_BIN"];
    }
  });
});
