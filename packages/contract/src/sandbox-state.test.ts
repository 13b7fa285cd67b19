import { describe, expect, it } from "vitest";
import { can, isTransitional, mayBecome, occupyingStatuses, sandboxStatuses } from "./sandbox-state.ts";

/** Every status that can be reached from one by following edges. */
function reachable(from: (typeof sandboxStatuses)[number]): Set<string> {
  const seen = new Set<string>();
  const visit = (status: (typeof sandboxStatuses)[number]): void => {
    for (const next of sandboxStatuses) {
      if (!mayBecome(status, next) || seen.has(next)) continue;
      seen.add(next);
      visit(next);
    }
  };
  visit(from);
  return seen;
}

describe("the sandbox state machine", () => {
  it.each(sandboxStatuses.filter((status) => status !== "stopped"))("lets a %s sandbox be destroyed", (status) => {
    expect(can.destroy(status)).toBe(true);
    expect(status === "stopping" || mayBecome(status, "stopping")).toBe(true);
    expect(reachable(status)).toContain("stopped");
  });

  it("never leaves stopped", () => {
    expect(sandboxStatuses.filter((next) => mayBecome("stopped", next))).toEqual([]);
  });

  it("has no status that follows itself", () => {
    expect(sandboxStatuses.filter((status) => mayBecome(status, status))).toEqual([]);
  });

  it("counts every transitional status against the host", () => {
    expect(sandboxStatuses.filter(isTransitional).every((status) => occupyingStatuses.includes(status as never))).toBe(
      true,
    );
  });

  it("lets a guest be reached only while it runs", () => {
    expect(sandboxStatuses.filter(can.reach)).toEqual(["running", "snapshotting"]);
  });
});
