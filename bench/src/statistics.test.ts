import { describe, expect, it } from "vitest";
import { median, percentile, ratioOf } from "./statistics.ts";

describe("percentiles", () => {
  it("are samples, by nearest rank", () => {
    expect(percentile([15, 20, 35, 40, 50], 30)).toBe(20);
    expect(percentile([15, 20, 35, 40, 50], 100)).toBe(50);
    expect(median([3, 1, 2])).toBe(2);
    expect(
      percentile(
        Array.from({ length: 100 }, (_, index) => index + 1),
        99,
      ),
    ).toBe(99);
  });

  it("of nothing are an error", () => {
    expect(() => percentile([], 50)).toThrow("no samples");
  });
});

describe("ratios", () => {
  it("have an interval around them that is the same every time", () => {
    const bare = Array.from({ length: 40 }, (_, index) => 100 + (index % 7));
    const ours = bare.map((sample) => sample * 1.2);
    const ratio = ratioOf(ours, bare);
    expect(ratio.value).toBeCloseTo(1.2);
    expect(ratio.low).toBeLessThanOrEqual(ratio.value);
    expect(ratio.high).toBeGreaterThanOrEqual(ratio.value);
    expect(ratioOf(ours, bare)).toEqual(ratio);
  });
});
