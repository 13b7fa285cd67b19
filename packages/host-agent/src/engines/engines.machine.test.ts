/** Which processes of a machine count as engines. */
import { mkdir, mkdtemp, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { newId } from "@wrenn/contract";
import {
  identifyProcess,
  pollUntil,
  type ProcessIdentity,
  signalProcess,
  startDaemon,
  wrennLayout,
} from "@wrenn/system";
import { afterEach, beforeEach, expect, it } from "vitest";
import { isContained } from "./contained.ts";
import { findAllEngineProcesses, findEngineProcesses } from "./engines.ts";
import { qmpArgument } from "./qemu/command-line.ts";
import { canaryFiles } from "./qemu/kvm.ts";

const id = newId("sandbox");
const started: ProcessIdentity[] = [];
let layout: ReturnType<typeof wrennLayout>;

beforeEach(async () => {
  layout = wrennLayout(await mkdtemp(path.join(tmpdir(), "wrenn-engines-")));
});

afterEach(async () => {
  for (const identity of started.splice(0)) await signalProcess(identity, "SIGKILL");
  await rm(layout.root, { recursive: true, force: true });
});

async function start(program: string, args: readonly string[]): Promise<ProcessIdentity> {
  const { pid } = await startDaemon(program, args, { logFile: "/dev/null" });
  const identity = await identifyProcess(pid);
  if (identity === null) throw new Error(`${program} ended at once`);
  started.push(identity);
  return identity;
}

/** A process that says with its arguments that it is the engine of this control socket, and then waits to be killed. */
const claim = (qmpSocket: string): [string, ...string[]] => [
  "sh",
  "-c",
  "kill -STOP $$",
  "engine",
  "-qmp",
  qmpArgument(qmpSocket),
];

it("finds a sandbox's engine by its control socket, and a canary that was left behind", async () => {
  const files = layout.sandbox(id);
  const [program, ...args] = claim(files.qmpSocket);
  const engine = await start(program, args);
  const [, ...canaryArgs] = claim(canaryFiles(layout).qmpSocket);
  const canary = await start(program, canaryArgs);
  await expect(findEngineProcesses(files)).resolves.toEqual([engine]);
  const byPid = (a: ProcessIdentity, b: ProcessIdentity): number => a.pid - b.pid;
  expect((await findAllEngineProcesses(layout)).toSorted(byPid)).toEqual([engine, canary].toSorted(byPid));
});

/** A process whose root directory is `root`, and which waits there to be killed. */
async function startIn(root: string, command: readonly string[]): Promise<ProcessIdentity> {
  await mkdir(path.join(root, "usr"), { recursive: true });
  for (const name of ["bin", "lib", "lib64"]) await symlink(`usr/${name}`, path.join(root, name));
  const enter = `mount --rbind /usr "$0/usr" && exec chroot "$0" "$@"`;
  const contained = await start("unshare", ["--mount", "sh", "-c", enter, root, ...command]);
  const entered = await pollUntil(async () => ((await isContained(contained.pid)) ? true : null), { timeoutMs: 5_000 });
  expect(entered).toBe(true);
  return contained;
}

it("finds a jailed engine by its root directory, whatever its command line says, and one on its way into the jail", async () => {
  const files = layout.sandbox(id);
  const other = layout.sandbox(newId("sandbox"));
  const waiting = ["sh", "-c", "kill -STOP $$", "no engine at all"];
  const jailed = await startIn(path.join(files.jail.directory, "firecracker", id, "root"), waiting);
  const [program = "", ...args] = waiting;
  const onItsWay = await start(program, [...args, "--chroot-base-dir", files.jail.directory]);
  const byPid = (a: ProcessIdentity, b: ProcessIdentity): number => a.pid - b.pid;
  const both = [jailed, onItsWay].toSorted(byPid);
  expect((await findEngineProcesses(files)).toSorted(byPid)).toEqual(both);
  expect((await findAllEngineProcesses(layout)).toSorted(byPid)).toEqual(both);
  await expect(findEngineProcesses(other)).resolves.toEqual([]);
});

it("leaves the engines of a Wrenn inside a container alone", async () => {
  await startIn(path.join(layout.root, "container"), claim(layout.sandbox(id).qmpSocket));
  await expect(findAllEngineProcesses(layout)).resolves.toEqual([]);
});
