/** The embedded PostgreSQL, with real clusters. Needs root, which PostgreSQL itself refuses to run as. */
import { chmod, mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { identifyProcess, type Layout, layoutFromEnvironment, waitForExit, wrennLayout } from "@wrenn/system";
import { afterEach, beforeEach, expect, it } from "vitest";
import { Part, readPartRecord } from "./part.ts";
import { prepareEmbeddedPostgres } from "./postgres.ts";

let layout: Layout;
const parts: Part[] = [];

beforeEach(async () => {
  layout = wrennLayout(await mkdtemp("/tmp/wrenn-pg-"));
  await chmod(layout.root, 0o711);
  await mkdir(layout.run);
  await mkdir(layout.logs);
  // The programs are the same for all.
  await mkdir(layoutFromEnvironment().bin, { recursive: true });
  await symlink(layoutFromEnvironment().bin, layout.bin);
});

afterEach(async () => {
  for (const part of parts.splice(0)) await part.stop();
  await rm(layout.root, { recursive: true });
});

async function start(): Promise<"adopted" | "started"> {
  const { part: definition } = await prepareEmbeddedPostgres(layout);
  const part = new Part(layout, definition, () => undefined);
  parts.push(part);
  return part.ensureStarted();
}

async function pid(): Promise<number> {
  return (await readPartRecord(layout, "postgres"))?.identity.pid ?? 0;
}

it("runs as a user of its own, lets nobody else in, and is adopted by the next server", async () => {
  expect(await start()).toBe("started");
  const { uid, mode } = await stat(layout.postgres);
  expect(uid).not.toBe(0);
  expect(mode & 0o777).toBe(0o700);
  const status = await readFile(`/proc/${await pid()}/status`, "utf8");
  expect(status).toContain(`Uid:\t${uid}\t${uid}\t${uid}\t${uid}`);
  expect(await start()).toBe("adopted");
});

it("starts again after kill -9, over the pid file that was left", async () => {
  await start();
  const first = await identifyProcess(await pid());
  if (first === null) throw new Error("PostgreSQL does not run");
  process.kill(first.pid, "SIGKILL");
  await waitForExit(first, 5_000);
  expect(await start()).toBe("started");
});

it("starts over a pid file whose pid another program has been given", async () => {
  await start();
  await parts[0]?.stop();
  await writeFile(path.join(layout.postgres, "postmaster.pid"), `${process.ppid}\n${layout.postgres}\n`);
  expect(await start()).toBe("started");
});

it("ends a postmaster that nobody has a record of", async () => {
  await start();
  const first = await identifyProcess(await pid());
  await rm(layout.processRecord("postgres"));
  expect(await start()).toBe("started");
  expect(await pid()).not.toBe(first?.pid);
});

it("removes programs whose installation was interrupted", async () => {
  // No process can have this pid.
  const unfinished = path.join(layout.bin, "postgresql-1.4194305.tmp");
  await mkdir(unfinished);
  await start();
  await expect(stat(unfinished)).rejects.toMatchObject({ code: "ENOENT" });
});

it("makes the cluster anew when making it was interrupted", async () => {
  await mkdir(`${layout.postgres}.new/base`, { recursive: true });
  await writeFile(`${layout.postgres}.new/PG_VERSION`, "18\n");
  expect(await start()).toBe("started");
});
