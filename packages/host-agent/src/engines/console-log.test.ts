import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { boundLog, ConsoleLog, consoleTail } from "./console-log.ts";

let directory: string;
let file: string;

beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "wrenn-console-"));
  file = path.join(directory, "console.log");
});

afterEach(async () => {
  await rm(directory, { recursive: true });
});

it("never grows past its bound, and keeps the newest", async () => {
  const log = new ConsoleLog(file);
  for (let round = 0; round < 5; round++) await log.append(Buffer.alloc(400_000, `${round}`));
  await log.append(Buffer.from("\nthe end\n"));
  expect((await stat(file)).size).toBeLessThanOrEqual(1_048_576);
  expect((await readFile(file, "utf8")).endsWith("4\nthe end\n")).toBe(true);
  await expect(log.tail()).resolves.toMatch(/4\nthe end$/);
});

it("has an empty tail before anything was printed", async () => {
  await expect(new ConsoleLog(file).tail()).resolves.toBe("");
});

it("shows lines without what only a terminal understands", () => {
  expect(consoleTail(Buffer.from("\u001b[1;31mred\u001b[0m\r\nbell\u0007\r\n"))).toBe("red\nbell");
});

it("shows no more than the last lines", () => {
  const lines = Array.from({ length: 150 }, (_, line) => `line ${line}`).join("\n");
  expect(consoleTail(Buffer.from(lines)).split("\n")).toHaveLength(100);
  expect(consoleTail(Buffer.from(lines))).toMatch(/line 149$/);
});

it("empties an engine's log that has grown too large, and no other", async () => {
  await writeFile(file, "a few words");
  await boundLog(file);
  expect((await stat(file)).size).toBe(11);
  await writeFile(file, Buffer.alloc(1_048_577));
  await boundLog(file);
  expect((await stat(file)).size).toBe(0);
  await boundLog(path.join(directory, "not-there"));
});
