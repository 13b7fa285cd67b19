import { type FileHandle, mkdtemp, open, rm } from "node:fs/promises";
import { constants } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { run } from "@wrenn/system";
import { afterEach, beforeEach, expect, it } from "vitest";
import { PipeLog } from "./pipe-log.ts";

let directory: string;
let pipe: string;
let engine: FileHandle;
let seen: string;

const append = async (bytes: Buffer): Promise<void> => {
  seen += bytes.toString();
};

beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "wrenn-pipe-"));
  pipe = path.join(directory, "console");
  await run("mkfifo", [pipe]);
  // As Firecracker opens it.
  engine = await open(pipe, constants.O_RDWR | constants.O_NONBLOCK);
  seen = "";
});

afterEach(async () => {
  await engine.close();
  await rm(directory, { recursive: true });
});

it("moves what was printed, also before there was anyone to read it, and reads on after another has stopped", async () => {
  await engine.write("one ");
  const first = await PipeLog.open(pipe, append);
  await first?.drain();
  await first?.drain();
  await first?.close();
  await engine.write("two ");
  const second = await PipeLog.open(pipe, append);
  await Promise.all([second?.drain(), second?.drain()]);
  await second?.close();
  expect(seen).toBe("one two ");
});

it("keeps the last words of an engine that ends", async () => {
  const log = await PipeLog.open(pipe, append);
  await engine.write("panic");
  await engine.close();
  await log?.drain();
  await log?.close();
  expect(seen).toBe("panic");
  engine = await open(pipe, constants.O_RDWR | constants.O_NONBLOCK);
});

it("lets an engine that nobody reads from go on", async () => {
  const chunk = Buffer.alloc(4_096, "x");
  const fill = async (): Promise<void> => {
    for (let written = 0; written < 1_000; written++) await engine.write(chunk);
  };
  await expect(fill()).rejects.toMatchObject({ code: "EAGAIN" });
});

it("is no error where there is no such pipe, or its content cannot be kept", async () => {
  await expect(PipeLog.open(path.join(directory, "none"), append)).resolves.toBeNull();
  await engine.write("lost");
  const log = await PipeLog.open(pipe, () => Promise.reject(new Error("disk full")));
  await expect(log?.drain()).resolves.toBeUndefined();
  await log?.close();
});
