import { appendFile, mkdtemp, rm, stat, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { pollUntil } from "@wrenn/system";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { followLog, logSize, rotateLog, tailLog } from "./log-files.ts";

let directory: string;
let file: string;

beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "wrenn-log-"));
  file = path.join(directory, "part.log");
});

afterEach(async () => {
  await rm(directory, { recursive: true });
});

describe("a log", () => {
  it("that has grown too large is moved aside, under its writer", async () => {
    await writeFile(file, "x");
    await truncate(file, 17 * 1_048_576);
    await rotateLog(file);
    expect((await stat(file)).size).toBe(0);
    expect((await stat(`${file}.1`)).size).toBe(17 * 1_048_576);
  });

  it("of ordinary size, or that is not there, is left alone", async () => {
    await rotateLog(file);
    await writeFile(file, "small");
    await rotateLog(file);
    expect((await stat(file)).size).toBe(5);
  });

  it("shows its last lines, and only those of the latest attempt when asked", async () => {
    expect(await tailLog(file, 2)).toBe("");
    await writeFile(file, "one\ntwo\nthree\n");
    expect(await tailLog(file, 2)).toBe("two\nthree");
    const position = await logSize(file);
    await appendFile(file, "four\n");
    expect(await tailLog(file, 2, position)).toBe("four");
  });

  it("is followed from its end, in whole lines, also after it was emptied", async () => {
    await writeFile(file, "before\n");
    const lines: string[] = [];
    const stop = new AbortController();
    const following = followLog(file, (line) => lines.push(line), stop.signal);
    const until = async (count: number): Promise<void> => {
      await pollUntil(async () => (lines.length >= count ? true : null), { timeoutMs: 5_000, intervalMs: 20 });
    };
    await appendFile(file, "a");
    await appendFile(file, "b\nsecond line is longer than all\n");
    await until(2);
    await writeFile(file, "anew\n");
    await until(3);
    const [before, after] = [Buffer.from("grü\n").subarray(0, 3), Buffer.from("grü\n").subarray(3)];
    await appendFile(file, before);
    await delay(500);
    await appendFile(file, after);
    await until(4);
    stop.abort();
    await following;
    expect(lines).toEqual(["ab", "second line is longer than all", "anew", "grü"]);
  });
});
