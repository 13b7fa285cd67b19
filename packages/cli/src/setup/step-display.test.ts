import { describe, expect, it } from "vitest";
import { StepDisplay } from "./step-display.ts";

function show(output: { isTTY?: boolean; columns?: number }, use: (display: StepDisplay) => void): string {
  let shown = "";
  const write = (text: string): void => {
    shown += text;
  };
  use(new StepDisplay({ ...output, write }, "[1/2] Working", 5));
  return shown;
}

describe("a step on a terminal", () => {
  it("is one line, drawn over until it ends", () => {
    const shown = show({ isTTY: true, columns: 40 }, (display) => {
      display.succeed();
    });
    expect(shown.match(/\n/g)).toHaveLength(1);
    expect(shown).toMatch(/\[1\/2\] Working \(about 5 s\): done in \d+\.\d s\n$/);
  });

  it("never wraps, which could not be drawn over", () => {
    const shown = show({ isTTY: true, columns: 20 }, (display) => {
      display.fail();
    });
    const [live = ""] = shown.split("\u001B[K");
    expect(live.length).toBeLessThanOrEqual(20);
  });
});

describe("a step elsewhere", () => {
  it("is a line at its begin and one at its end, without control characters", () => {
    const shown = show({}, (display) => {
      display.say("\u001B[31mdetail\u001B[0m");
      display.fail();
    });
    expect(shown).toMatch(/^\[1\/2\] Working \(about 5 s\)\n {6}failed after \d+\.\d s\n$/);
  });
});
