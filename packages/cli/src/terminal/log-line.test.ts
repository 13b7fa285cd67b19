import { describe, expect, it } from "vitest";
import { formatLogLine } from "./log-line.ts";

describe("a line of a part's log", () => {
  it("in JSON is made readable, without what only machines read", () => {
    const line = JSON.stringify({
      level: 40,
      time: 1,
      pid: 2,
      hostname: "h",
      msg: "slow",
      sandbox: "x",
      timing: { a: 1 },
    });
    expect(formatLogLine("host-agent", line)).toBe('host-agent     warn  slow sandbox=x timing={"a":1}');
  });

  it.each(["LOG:  ready", '{"level":', ""])("that is anything else (%j) is shown as it is", (line) => {
    expect(formatLogLine("postgres", line)).toBe(`postgres       ${line}`);
  });
});
