import { newId } from "@wrenn/contract";
import type { SandboxStatus } from "@wrenn/contract";
import { expect, test } from "vitest";
import type { ExpectedSandbox } from "./reconciliation-plan.ts";
import { planForSilence } from "./silence-plan.ts";

function row(status: SandboxStatus, overdue = false): ExpectedSandbox {
  return { id: newId("sandbox"), status, version: 1, overdue, started_at: new Date(0), recoverable: [] };
}

test.each([
  ["running", ["mark_missing"], ["mark_missing"]],
  ["snapshotting", [], ["mark_missing"]],
  ["pausing", [], ["mark_missing"]],
  ["resuming", [], ["mark_missing"]],
  // Of a sandbox that has run before: it is being recovered.
  ["starting", [], ["mark_missing"]],
  ["paused", [], []],
  ["missing", [], []],
  // Its host is asked until it has destroyed it.
  ["stopping", [], []],
  ["error", [], []],
] as const)("a %s sandbox whose host stays away is not waited for once its time is up", (status, before, after) => {
  expect(planForSilence([row(status)]).map((action) => action.do)).toEqual(before);
  expect(planForSilence([row(status, true)]).map((action) => action.do)).toEqual(after);
});

test("a sandbox that has never run fails once its time is up, when its host stays away", () => {
  for (const status of ["pending", "starting"] as const) {
    const unborn = { ...row(status), started_at: null };
    expect(planForSilence([unborn])).toEqual([]);
    expect(planForSilence([{ ...unborn, overdue: true }])).toMatchObject([
      { do: "mark_failed", reason: { code: "host_unavailable" } },
    ]);
  }
});
