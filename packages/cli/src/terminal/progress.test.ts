import { PassThrough } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import type { WriteStream } from "node:tty";
import { describe, expect, it } from "vitest";
import { Progress } from "./progress.ts";

function stream(isTTY: boolean): { written: () => string; stream: NodeJS.WriteStream } {
  const through = new PassThrough();
  let text = "";
  through.on("data", (chunk: Buffer) => (text += chunk.toString()));
  // A terminal is told from a file by this property alone.
  const terminal = Object.assign(through, { isTTY }) as unknown as WriteStream;
  return { written: () => text, stream: terminal };
}

describe("progress", () => {
  it("on a terminal shows the step while it lasts, and nothing of it afterwards", async () => {
    const { written, stream: terminal } = stream(true);
    await new Progress({ quiet: false, stream: terminal }).during("creating", () => delay(350));
    expect(written()).toMatch(/^\rcreating … 0\.\d s/);
    expect(written().endsWith("\r\u001B[K")).toBe(true);
  });

  it("elsewhere leaves a line for a milestone only", async () => {
    const { written, stream: file } = stream(false);
    const progress = new Progress({ quiet: false, stream: file });
    expect(await progress.during("creating", () => Promise.resolve(1))).toBe(1);
    await progress.milestone("starting", () => delay(1));
    expect(written()).toBe("starting … 0.0 s\n");
  });

  it("says nothing when it is to be quiet, and nothing of a step that failed", async () => {
    const { written, stream: terminal } = stream(true);
    await new Progress({ quiet: true, stream: terminal }).milestone("starting", () => delay(200));
    const failing = new Progress({ quiet: false, stream: terminal }).milestone("starting", () =>
      Promise.reject(new Error("no")),
    );
    await expect(failing).rejects.toThrow("no");
    expect(written()).toBe("");
  });
});
