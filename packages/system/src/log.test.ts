import { closeSync, openSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { createLog, LossyOutput } from "./log.ts";

function logTo(file: string): ReturnType<typeof createLog> {
  const descriptor = openSync(file, "a");
  onTestFinished(() => {
    closeSync(descriptor);
  });
  return createLog({ level: "info", destination: new LossyOutput(descriptor) });
}

it("a log on a full disk loses its lines, and keeps nobody from going on", () => {
  const log = logTo("/dev/full");
  for (let line = 0; line < 100; line++) {
    expect(() => {
      log.error({ line }, "what nobody will read");
    }).not.toThrow();
  }
});

it("a log writes one line for each message, in order", async () => {
  const directory = await mkdtemp(path.join(tmpdir(), "wrenn-log-"));
  onTestFinished(() => rm(directory, { recursive: true }));
  const file = path.join(directory, "log");
  const log = logTo(file);
  log.info("first");
  log.warn("x".repeat(200_000));
  log.info("last");
  const lines = (await readFile(file, "utf8")).trimEnd().split("\n");
  expect(lines.map((line) => (JSON.parse(line) as { msg: string }).msg.length)).toEqual([5, 200_000, 4]);
});
