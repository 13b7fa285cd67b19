import { describe, expect, it } from "vitest";
import { parseLabOptions } from "./options.ts";

const parse = (...argv: string[]) => parseLabOptions(argv, "/project");

describe("the lab's options", () => {
  it("end where the command begins, whose own are left to it", () => {
    expect(parse("--deadline", "5", "--env=A", "--env", "B", "vitest", "--project", "lab")).toMatchObject({
      command: ["vitest", "--project", "lab"],
      deadlineMs: 5_000,
      environment: ["A", "B"],
    });
    expect(parse("--", "--odd-program", "x")?.command).toEqual(["--odd-program", "x"]);
  });

  it("name folders from the project", () => {
    expect(parse("--results", "bench/results", "true")?.results).toBe("/project/bench/results");
    expect(parse("true")?.results).toBeNull();
  });

  it("are refused when they cannot be meant", () => {
    expect(() => parse()).toThrow("no command");
    expect(() => parse("--deadline", "0", "true")).toThrow("--deadline takes a positive number");
    expect(() => parse("--scratch", "ntfs", "true")).toThrow("xfs or ext4");
    expect(() => parse("--unknown", "x", "true")).toThrow("--unknown");
    expect(parse("--help")).toBeNull();
  });
});
