import { describe, expect, it } from "vitest";
import {
  collectPair,
  collectVariable,
  formatBytes,
  formatSpan,
  parseCount,
  parseDuration,
  parseMebibytes,
  parseSignal,
  parseTimeout,
} from "./units.ts";

describe("durations", () => {
  it.each([
    ["30s", 30_000],
    ["5m", 300_000],
    ["1.5h", 5_400_000],
    ["1d", 86_400_000],
    ["500ms", 500],
    ["2", 2_000],
  ])("%s is %d ms", (text, milliseconds) => {
    expect(parseDuration(text)).toBe(milliseconds);
  });

  it.each(["", "s", "-1s", "0", "5 m", "1w", "soon"])("refuses %j", (text) => {
    expect(() => parseDuration(text)).toThrow("Give a duration");
  });

  it("have an upper bound, below what a timer can wait for", () => {
    expect(parseDuration("576h")).toBeLessThan(2 ** 31 - 1);
    expect(() => parseDuration("577h")).toThrow("at most 576h (24 days)");
  });

  it("that the server measures are whole seconds, or never", () => {
    expect(parseTimeout("30d")).toBe(2_592_000_000);
    expect(parseTimeout("1.2s")).toBe(1_200);
    expect(parseTimeout("never")).toBeNull();
    expect(() => parseTimeout("ever")).toThrow("Give a duration");
  });

  it("are shown in their two largest units", () => {
    expect(formatSpan(0)).toBe("0 s");
    expect(formatSpan(61_000)).toBe("1 min 1 s");
    expect(formatSpan(90_061_000)).toBe("1 d 1 h");
    expect(formatSpan(3_600_000)).toBe("1 h");
  });
});

describe("sizes", () => {
  it.each([
    ["512", 512],
    ["512M", 512],
    ["1G", 1_024],
    ["1.5GiB", 1_536],
    ["256mb", 256],
  ])("%s is %d MiB", (text, mebibytes) => {
    expect(parseMebibytes(text)).toBe(mebibytes);
  });

  it.each(["", "G", "1T", "-1", "0.3M", "1 G"])("refuses %j", (text) => {
    expect(() => parseMebibytes(text)).toThrow("Give a size");
  });

  it.each([
    [0, "0 B"],
    [1_023, "1023 B"],
    [1_024, "1.0 KiB"],
    [1_610_612_736, "1.5 GiB"],
    [2 ** 51, "2048.0 TiB"],
  ])("%d bytes are shown as %s", (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });

  it("counts are whole", () => {
    expect(parseCount("4")).toBe(4);
    expect(() => parseCount("1.5")).toThrow("whole number");
  });
});

describe("-e", () => {
  it("collects, and keeps everything behind the first equals sign", () => {
    expect(collectVariable("B=x=y", { A: "1" })).toEqual({ A: "1", B: "x=y" });
  });

  it("takes a bare name from the environment, and leaves out what is not set there", () => {
    process.env["WRENN_UNITS_TEST"] = "from outside";
    expect(collectVariable("WRENN_UNITS_TEST")).toEqual({ WRENN_UNITS_TEST: "from outside" });
    delete process.env["WRENN_UNITS_TEST"];
    expect(collectVariable("WRENN_UNITS_TEST")).toEqual({});
  });

  it("refuses an empty name", () => {
    expect(() => collectVariable("=x")).toThrow("NAME=value");
  });
});

describe("--metadata", () => {
  it("collects, and keeps everything behind the first equals sign", () => {
    expect(collectPair("b=x=y", { a: "" })).toEqual({ a: "", b: "x=y" });
  });

  it.each(["", "a", "=a"])("refuses %j", (text) => {
    expect(() => collectPair(text)).toThrow("Give key=value");
  });
});

describe("signals", () => {
  it.each(["SIGTERM", "TERM", "term", "15"])("%s is SIGTERM", (text) => {
    expect(parseSignal(text)).toBe("SIGTERM");
  });

  it.each(["", "SIG", "SEGV", "0", "15x"])("refuses %j", (text) => {
    expect(() => parseSignal(text)).toThrow("Give one of SIGHUP");
  });
});
