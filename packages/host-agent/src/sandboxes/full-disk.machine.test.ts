/** A disk that is full: what cannot be frozen runs on, the older frozen state stays, and nothing is left of the attempt. */
import { appendFile, chmod, mkdtemp, rm, statfs, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { hostAgentProto } from "@wrenn/contract";
import { hasErrno, run } from "@wrenn/system";
import { afterAll, beforeAll, expect, it } from "vitest";
import { codeOf } from "../testing/interruption.ts";
import { Stage } from "../testing/stage.ts";

const { SandboxState } = hostAgentProto;

const mebibyte = 1_048_576;

let stage: Stage | null = null;
let mountPoint: string;

beforeAll(async () => {
  mountPoint = await mkdtemp(path.join(tmpdir(), "wrenn-full-"));
  const image = `${mountPoint}.img`;
  await run("truncate", ["-s", "1200M", image]);
  await run("mkfs.ext4", ["-q", "-m", "0", image]);
  await run("mount", ["-o", "loop", image, mountPoint]);
  await chmod(mountPoint, 0o711);
  stage = await Stage.open({}, { parent: mountPoint });
});

afterAll(async () => {
  await stage?.agent.remove();
  await run("umount", [mountPoint]);
  await rm(mountPoint, { recursive: true });
  await rm(`${mountPoint}.img`);
});

function onStage(): Stage {
  if (stage === null) throw new Error("no host agent was started");
  return stage;
}

async function free(): Promise<number> {
  const { bavail, bsize } = await statfs(mountPoint);
  return bavail * bsize;
}

/** Lets no more than this be free while a piece of work lasts. */
async function whileFull(left: number, work: () => Promise<void>): Promise<void> {
  const ballast = path.join(mountPoint, "ballast");
  await run("fallocate", ["-l", String(Math.floor((await free()) - left - 2 * mebibyte)), ballast]);
  try {
    // The rest in pieces, for the file's own map takes room as well.
    while ((await free()) > left) await appendFile(ballast, Buffer.alloc(32_768));
  } catch (error) {
    if (!hasErrno(error, "ENOSPC")) throw error;
  }
  try {
    await work();
  } finally {
    await rm(ballast);
  }
}

/** The code that a call fails with. */
async function failure(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return "none";
  } catch (error) {
    return codeOf(error);
  }
}

it.each([0, 0.01, 0.1, 1])(
  "a sandbox that cannot be frozen with %d MiB free runs on, and is frozen later",
  async (left) => {
    const stage = onStage();
    await stage.bring("running");
    expect(await stage.leaks()).toEqual([]);
    await whileFull(left * mebibyte, async () => {
      const before = await free();
      expect(await failure(stage.pause())).toBe("host_out_of_disk");
      expect(await stage.stateOf(stage.id)).toBe(SandboxState.RUNNING);
      expect(await failure(stage.snapshot())).toBe("host_out_of_disk");
      expect(await failure(stage.fork())).toBe("host_out_of_disk");
      expect(await free()).toBeGreaterThanOrEqual(before - mebibyte);
    });
    expect(await stage.losses()).toEqual([]);
    await stage.pause();
    expect(await stage.losses()).toEqual([]);
    expect(await stage.leaks()).toEqual([]);
  },
);

it("a paused sandbox that cannot be resumed stays paused, is resumed later, and can be destroyed", async () => {
  const stage = onStage();
  await stage.bring("paused");
  await whileFull(0, async () => {
    expect(await failure(stage.resume())).toBe("host_out_of_disk");
    expect(await stage.stateOf(stage.id)).toBe(SandboxState.PAUSED);
    await writeFile(path.join(mountPoint, "last"), "x").catch(() => undefined);
  });
  await rm(path.join(mountPoint, "last"), { force: true });
  expect(await stage.losses()).toEqual([]);
  await stage.pause();
  await whileFull(0, () => stage.destroy());
  expect(await stage.stateOf(stage.id)).toBeNull();
  expect(await stage.leaks()).toEqual([]);
});
