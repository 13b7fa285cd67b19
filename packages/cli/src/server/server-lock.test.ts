import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { wrennLayout } from "@wrenn/system";
import { expect, it } from "vitest";
import { takeServerLock } from "./server-lock.ts";

it("a lock that cannot be taken is not said to be another server's", async () => {
  const layout = wrennLayout("/nonexistent");
  await expect(takeServerLock(layout)).rejects.toMatchObject({ code: "subprocess_failed" });
});

it("one server holds the lock at a time, and the next can have it afterwards", async () => {
  const layout = wrennLayout(await mkdtemp(path.join(tmpdir(), "wrenn-lock-")));
  await mkdir(layout.run);
  const first = await takeServerLock(layout);
  expect(first).not.toBeNull();
  expect(await takeServerLock(layout)).toBeNull();
  await first?.release();
  const second = await takeServerLock(layout);
  expect(second).not.toBeNull();
  await second?.release();
  await rm(layout.root, { recursive: true });
});
