/** The lab as a user runs it: what comes out of it, and that nothing is left of it however it ends. */
import { type ChildProcess, type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { identifyProcess, layoutFromEnvironment, type ProcessIdentity, waitForExit } from "@wrenn/system";
import { afterAll, beforeAll, expect, it } from "vitest";
import { labDirectory } from "./paths.ts";

const program = fileURLToPath(new URL("../dist/main.js", import.meta.url));
/** The first run makes the image, should nobody have done so. */
const firstMs = 900_000;
/** A VM that was killed is gone in milliseconds. */
const endMs = 20_000;

let results: string;

beforeAll(async () => {
  results = await mkdtemp(path.join(tmpdir(), "wrenn-lab-"));
});

afterAll(async () => {
  await rm(results, { recursive: true, force: true });
});

it(
  "brings back output, exit code and files of a command that has KVM, device-mapper and this project",
  async () => {
    const script = `
    test -c /dev/kvm && test -c /dev/mapper/control && test -c /dev/net/tun || exit 1
    test "$WRENN_ASKED" = 'a b' && test "$ASKED" = yes && test -z "$OTHER" || exit 2
    cmp package.json ${JSON.stringify(path.join(path.dirname(program), "../../package.json"))} || exit 3
    node -e 'import("@wrenn/contract").then(({ minimalTemplateId }) => console.error(minimalTemplateId))' || exit 4
    mkdir -p ${results}/deep && printf '#!/bin/sh\\n' >${results}/deep/run && chmod 755 ${results}/deep/run
    head -c 1000000 /dev/zero | tr '\\0' x
    printf '\\377\\000\\n\\r'
    exit 7`;
    await writeFile(path.join(results, "older"), "");
    const ended = await lab(["--results", results, "--env", "ASKED", "sh", "-c", script], {
      WRENN_ASKED: "a b",
      ASKED: "yes",
      OTHER: "not to be seen",
    });
    expect(ended).toMatchObject({ code: 7 });
    expect(ended.stdout).toHaveLength(1_000_004);
    expect(ended.stdout.subarray(0, 1_000_000).equals(Buffer.alloc(1_000_000, "x"))).toBe(true);
    expect([...ended.stdout.subarray(1_000_000)]).toEqual([0xff, 0, 0x0a, 0x0d]);
    expect(ended.stderr).toContain("\n00000000-0000-0000-0000-000000000000\n");
    expect((await readdir(results)).toSorted()).toEqual(["deep", "older"]);
    expect(await readFile(path.join(results, "deep/run"), "utf8")).toBe("#!/bin/sh\n");
    expect((await stat(path.join(results, "deep/run"))).mode & 0o777).toBe(0o755);
  },
  firstMs,
);

it("ends a command at its deadline, and brings back what it has left until then", async () => {
  const command = ["sh", "-c", `trap '' TERM; echo begun >${results}/late; while :; do sleep 1; done`];
  const ended = await lab(["--deadline", "3", "--results", results, ...command]);
  expect(ended).toMatchObject({ code: 124, stderr: expect.stringContaining("not ended within 3 s") as string });
  expect(await readFile(path.join(results, "late"), "utf8")).toBe("begun\n");
});

it("tells the end of its VM from that of a command, with the kernel's last words", async () => {
  const ended = await lab(["sh", "-c", "echo c >/proc/sysrq-trigger; sleep 60"]);
  expect(ended).toMatchObject({ code: 125, stderr: expect.stringContaining("sysrq triggered crash") as string });
});

it("leaves neither process nor file when it is interrupted or killed", async () => {
  for (const { signal, code } of [
    { signal: "SIGINT", code: 130 },
    { signal: "SIGKILL", code: null },
  ] as const) {
    const runner = start(["sh", "-c", "echo runs; sleep 600"]);
    await once(runner.stdout, "data");
    const machines = await childrenOf(runner);
    expect(machines).toHaveLength(1);
    const exited = once(runner, "exit");
    runner.kill(signal);
    expect((await exited)[0]).toBe(code);
    for (const machine of machines) await expect(waitForExit(machine, endMs)).resolves.toBe(true);
  }
  // What is unfinished begins with a dot. Another run of the lab may just be at it.
  const names = async (): Promise<string[]> => readdir(labDirectory(layoutFromEnvironment()));
  await expect.poll(async () => (await names()).filter((name) => name.startsWith("."))).toEqual([]);
});

it("says that there is no such command, and what it does not understand itself", async () => {
  expect(await lab(["no-such-program"])).toMatchObject({
    code: 127,
    stderr: expect.stringContaining("no-such-program: No such file or directory") as string,
  });
  expect(await lab(["--deadline", "soon", "true"])).toMatchObject({ code: 2 });
});

function start(args: readonly string[], env: NodeJS.ProcessEnv = {}): ChildProcessByStdio<null, Readable, Readable> {
  return spawn(process.execPath, [program, ...args], {
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
}

async function lab(
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
): Promise<{ code: number | null; stdout: Buffer; stderr: string }> {
  const child = start(args, env);
  const pieces: Buffer[] = [];
  let stderr = "";
  child.stdout.on("data", (piece: Buffer) => pieces.push(piece));
  child.stderr.on("data", (piece: Buffer) => (stderr += piece.toString()));
  const [code] = (await once(child, "close")) as [number | null];
  return { code, stdout: Buffer.concat(pieces), stderr };
}

async function childrenOf({ pid }: ChildProcess): Promise<ProcessIdentity[]> {
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8");
  const found = await Promise.all(
    children
      .trim()
      .split(" ")
      .map(async (child) => identifyProcess(Number(child))),
  );
  return found.filter((identity) => identity !== null);
}
