import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { boundLog, ConsoleLog, type ConsolePart, consoleTail } from "./console-log.ts";

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
  expect((await stat(file)).blocks * 512).toBeLessThanOrEqual(1_048_576);
  expect((await readFile(file, "utf8")).endsWith("4\nthe end\n")).toBe(true);
  await expect(log.tail()).resolves.toMatch(/4\nthe end$/);
});

/** All of a log, in calls of so many bytes, each from where the one before ended. */
async function readAll(log: ConsoleLog, maxLength: number, offset = 0): Promise<ConsolePart[]> {
  const parts: ConsolePart[] = [];
  for (;;) {
    const part = await log.read(parts.at(-1)?.nextOffset ?? offset, maxLength);
    if (part.nextOffset === part.offset) return parts;
    parts.push(part);
  }
}

it("goes on from where an earlier read ended, while it is appended to and older output is dropped", async () => {
  let read = "";
  let offset = 0;
  const lines = Array.from({ length: 60_000 }, (_, line) => `line ${line} äöü €\n`);
  for (let first = 0; first < lines.length; first += 1_000) {
    // Each a host agent of its own: what is remembered in memory must not matter.
    await new ConsoleLog(file).append(Buffer.from(lines.slice(first, first + 1_000).join("")));
    const part = await new ConsoleLog(file).read(offset, 262_144);
    expect(part.offset).toBe(offset);
    read += part.text;
    offset = part.nextOffset;
  }
  expect(read).toBe(lines.join(""));
  expect(offset).toBe(Buffer.byteLength(lines.join("")));
  expect(offset).toBeGreaterThan(1_048_576);
  expect((await stat(file)).blocks * 512).toBeLessThanOrEqual(1_048_576);
});

it("says where it begins when what was asked for has been dropped, at a whole line", async () => {
  const log = new ConsoleLog(file);
  const line = `${"x".repeat(99)}\n`;
  for (let round = 0; round < 40; round++) await log.append(Buffer.from(line.repeat(500)));
  const part = await log.read(0, 262_144);
  expect(part.offset).toBeGreaterThanOrEqual(2_000_000 - 1_048_576);
  expect(part.offset % line.length).toBe(0);
  expect(part.text.startsWith(line)).toBe(true);
  expect((await readAll(log, 100_000)).at(-1)?.nextOffset).toBe(2_000_000);
});

it("takes an offset beyond the end, and a log that is not there, for the end", async () => {
  const log = new ConsoleLog(file);
  await expect(log.read(7, 100)).resolves.toEqual({ text: "", offset: 0, nextOffset: 0 });
  await log.append(Buffer.from("words"));
  await expect(log.read(7, 100)).resolves.toEqual({ text: "", offset: 5, nextOffset: 5 });
});

it("cuts neither characters nor terminal sequences in two, wherever a read ends", async () => {
  const title = "\u001b]0;a title\u0007";
  const printed = `\u001b[1;31mröt\u001b[0m ${title}€ 😀\u001b(B\tend\u001b]2;other\u001b\\.\n`;
  const bytes = Buffer.from(printed);
  const shown = "röt € 😀\tend.\n";
  for (let cut = 1; cut < bytes.length; cut++) {
    await rm(file, { force: true });
    const log = new ConsoleLog(file);
    await log.append(bytes.subarray(0, cut));
    const first = await log.read(0, 1_000);
    await log.append(bytes.subarray(cut));
    const second = await log.read(first.nextOffset, 1_000);
    expect({ cut, text: first.text + second.text }).toEqual({ cut, text: shown });
    expect(second.nextOffset).toBe(bytes.length);
  }
  for (let maxLength = 16; maxLength < bytes.length; maxLength++) {
    const parts = await readAll(new ConsoleLog(file), maxLength);
    expect(parts.map(({ text }) => text).join("")).toBe(shown);
  }
});

it("does not wait for the end of a sequence that has none, nor for a character that cannot be one", async () => {
  const log = new ConsoleLog(file);
  await log.append(Buffer.concat([Buffer.from(`\u001b]${"x".repeat(2_000)}`), Buffer.from([0x80, 0x80, 0x80, 0x80])]));
  const part = await log.read(0, 100_000);
  expect(part.nextOffset).toBe(2_006);
  expect(part.text).toMatch(/^x{2000}\ufffd{4}$/);
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
