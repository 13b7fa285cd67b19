import { chmod, chown, lstat, mkdir, mkdtemp, readdir, rm, stat, symlink, truncate, writeFile } from "node:fs/promises";
import { once } from "node:events";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { newId } from "@wrenn/contract";
import { fileIdentity, run, wrennLayout } from "@wrenn/system";
import { afterEach, beforeEach, expect, it } from "vitest";
import type { VmSpec } from "../engine.ts";
import { jailsGid } from "../users.ts";
import { findJail, type Jail, jailOf, makeJail, removeJail, takeApiSocket, takeOut, within } from "./jail.ts";
import { inJail } from "./machine.ts";

const uid = 1_900_000_011;
const memoryMib = 1;

let root: string;
let spec: VmSpec;
let jail: Jail;

beforeEach(async () => {
  root = await mkdtemp(path.join(tmpdir(), "wrenn-jail-"));
  await chmod(root, 0o711);
  const layout = wrennLayout(root);
  const sandboxId = newId("sandbox");
  const files = layout.sandbox(sandboxId);
  await mkdir(files.directory, { recursive: true });
  const layer = layout.layer(newId("layer"));
  await mkdir(layer.directory, { recursive: true, mode: 0o700 });
  await writeFile(layer.memory, Buffer.alloc(memoryMib * 1_048_576, "m"), { mode: 0o400 });
  const [deviceState, disk] = [path.join(root, "device-state"), path.join(root, "disk")];
  await writeFile(deviceState, "devices", { mode: 0o400 });
  await writeFile(disk, "disk", { mode: 0o600 });
  await chown(disk, uid, uid);
  spec = {
    sandboxId,
    vcpus: 1,
    memoryMib,
    start: { from: "frozen", deviceState },
    memory: { backend: "file", path: layer.memory },
    disk: { path: disk, format: "raw" },
    files,
    network: { namespacePath: "/run/netns/none", tap: "tap0" },
    uid,
    cgroup: { procsFiles: [] },
  };
  jail = jailOf(files.jail, "/opt/firecracker-v1.16.1", sandboxId);
});

afterEach(async () => {
  await rm(root, { recursive: true });
});

const asEngine = (...command: string[]): Promise<unknown> =>
  run("setpriv", ["--reuid", `${uid}`, "--regid", `${jailsGid}`, "--clear-groups", "--", ...command]);

const memoryOf = ({ memory }: VmSpec): string => (memory.backend === "file" ? memory.path : "");

it("holds what a frozen VM needs under the same names for every VM, and is found again", async () => {
  await makeJail(jail, spec);
  await expect(findJail(spec.files.jail)).resolves.toEqual(jail);
  const names = (await readdir(jail.root)).map((name) => `/${name}`).toSorted();
  expect(names).toEqual([inJail.console, inJail.deviceState, inJail.disk, inJail.log, inJail.memory].toSorted());
  expect((await lstat(within(jail.root, inJail.console))).isFIFO()).toBe(true);
  // A second time, in place of what was left of the first.
  await writeFile(within(jail.root, "/left"), "");
  await makeJail(jail, spec);
  expect(await readdir(jail.root)).not.toContain("left");
});

it("shares frozen memory as it is, which its engine can read there, write nowhere, and reach by no other name", async () => {
  await makeJail(jail, spec);
  const [inside, outside] = [within(jail.root, inJail.memory), memoryOf(spec)];
  expect(await fileIdentity(inside)).toBe(await fileIdentity(outside));
  const { mode, uid: owner, gid } = await stat(inside);
  expect([mode & 0o777, owner, gid]).toEqual([0o440, 0, jailsGid]);
  // As the jailer leaves it: the engine's own, at the root of all that it can reach.
  await chown(jail.root, uid, jailsGid);
  const jailed = (command: string): Promise<unknown> =>
    run("sh", [
      "-c",
      `exec 3< "$1" && exec setpriv --reuid ${uid} --regid ${jailsGid} --clear-groups sh -c '${command}'`,
      "sh",
      inside,
    ]);
  await expect(jailed("head -c 1 <&3 > /dev/null")).resolves.toBeDefined();
  await expect(jailed("echo x > /proc/self/fd/3")).rejects.toMatchObject({ code: "subprocess_failed" });
  await expect(asEngine("cat", outside)).rejects.toMatchObject({ code: "subprocess_failed" });
});

it.each([
  { missing: "device state", code: "snapshot_damaged", spoil: () => rm(path.join(root, "device-state")) },
  { missing: "memory", code: "snapshot_damaged", spoil: () => rm(memoryOf(spec)) },
  { missing: "part of the memory", code: "snapshot_damaged", spoil: () => truncate(memoryOf(spec), 4_096) },
  { missing: "disk", code: "engine_failed", spoil: () => rm(path.join(root, "disk")) },
])("is not made without its $missing", async ({ code, spoil }) => {
  await spoil();
  await expect(makeJail(jail, spec)).rejects.toMatchObject({ code });
});

it("has no disk that only another engine can open", async () => {
  const disk = { path: spec.disk.path, format: "qcow2" } as const;
  await expect(makeJail(jail, { ...spec, disk })).rejects.toMatchObject({ code: "engine_failed" });
});

it("gives out its API socket, and nothing that was put in its place", async () => {
  await makeJail(jail, spec);
  await expect(takeApiSocket(jail)).resolves.toBe(false);
  const other = path.join(root, "other.sock");
  const server = createServer().listen(other);
  await once(server, "listening");
  const socket = within(jail.root, inJail.apiSocket);
  await symlink(other, socket);
  await expect(takeApiSocket(jail)).rejects.toMatchObject({ code: "engine_failed" });
  await rm(socket);
  await rm(jail.files.apiSocket);
  await run("ln", [other, socket]);
  await expect(takeApiSocket(jail)).resolves.toBe(true);
  server.close();
});

it("gives out what was written there, and not what a link there leads to", async () => {
  await makeJail(jail, spec);
  const secret = path.join(root, "secret");
  await writeFile(secret, "secret");
  await symlink(secret, within(jail.root, inJail.writtenMemory));
  await takeOut(jail, inJail.writtenMemory, jail.files.writtenMemory);
  expect((await lstat(jail.files.writtenMemory)).isSymbolicLink()).toBe(true);
});

it("goes with all that its engine has put into it, again and again", async () => {
  await makeJail(jail, spec);
  await mkdir(path.join(jail.root, "deep", "er"), { recursive: true });
  await removeJail(jail.files);
  await removeJail(jail.files);
  expect(await readdir(spec.files.directory)).toEqual([]);
  await expect(stat(memoryOf(spec))).resolves.toBeDefined();
});
