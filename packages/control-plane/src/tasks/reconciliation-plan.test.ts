import { hostAgentProto, newId, sandboxStatuses } from "@wrenn/contract";
import type { SandboxId, SandboxStatus } from "@wrenn/contract";
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { planReconciliation } from "./reconciliation-plan.ts";
import type { ExpectedSandbox, HeldSandbox } from "./reconciliation-plan.ts";
import { Sightings } from "./sightings.ts";

const { SandboxState, DeathSchema } = hostAgentProto;
const id = newId("sandbox");

function row(status: SandboxStatus, overdue = false, version = 1): ExpectedSandbox {
  return { id, status, version, overdue, started_at: new Date(0), recoverable: [] };
}

/** One that has never run. */
function unborn(status: SandboxStatus, overdue = false): ExpectedSandbox {
  return { ...row(status, overdue), started_at: null };
}

function held(state: hostAgentProto.SandboxState, sandboxId: string = id): HeldSandbox {
  const common = {
    sandboxId,
    state,
    engine: "e",
    engineVersion: "",
    engineReason: "",
    cpu: "",
    diskFormat: "",
    memoryBackend: "",
  };
  return state === SandboxState.DEAD
    ? { ...common, recoverable: ["disk"], death: create(DeathSchema, { code: "guest_panicked", message: "panic" }) }
    : { ...common, recoverable: [] };
}

/** What is done on the first look and on one that comes later and shows the same. */
function twoLooks(rows: ExpectedSandbox[], list: HeldSandbox[]): string[][] {
  let now = 0;
  const sightings = new Sightings(100, () => now);
  return [0, 200].map((time) => {
    now = time;
    const actions = planReconciliation(rows, list, sightings);
    sightings.endLook();
    return actions.map((action) => ("reason" in action ? `${action.do} ${action.reason?.code ?? "-"}` : action.do));
  });
}

const nothing = [[], []];
const once = (action: string): string[][] => [[action], [action]];
const onSecondLook = (action: string): string[][] => [[], [action]];

const { RUNNING, PAUSED, DEAD, PAUSING, RESUMING, SNAPSHOTTING, CREATING, DESTROYING } = SandboxState;

test.each([
  ["starting", false, CREATING, nothing],
  ["starting", true, CREATING, nothing],
  ["starting", false, RUNNING, once("mark_running -")],
  ["starting", true, PAUSED, onSecondLook("mark_running -")],
  // Of a sandbox that has run before: it is being recovered.
  ["starting", false, DEAD, nothing],
  ["starting", true, DEAD, once("mark_dead guest_panicked")],
  ["running", false, RUNNING, nothing],
  ["running", false, CREATING, nothing],
  ["running", false, DESTROYING, nothing],
  ["running", false, SNAPSHOTTING, nothing],
  ["running", false, PAUSING, nothing],
  ["running", false, PAUSED, once("mark_paused -")],
  ["running", false, DEAD, once("mark_dead guest_panicked")],
  ["running", false, undefined, onSecondLook("mark_lost")],
  ["snapshotting", false, RUNNING, nothing],
  ["snapshotting", false, SNAPSHOTTING, nothing],
  ["snapshotting", true, SNAPSHOTTING, nothing],
  ["snapshotting", true, RUNNING, onSecondLook("mark_running -")],
  ["snapshotting", true, PAUSED, onSecondLook("mark_running -")],
  ["snapshotting", false, DEAD, once("mark_dead guest_panicked")],
  ["snapshotting", false, undefined, onSecondLook("mark_lost")],
  ["pausing", false, RUNNING, nothing],
  ["pausing", true, RUNNING, onSecondLook("mark_running host_unavailable")],
  ["pausing", true, PAUSING, nothing],
  ["pausing", false, PAUSED, once("mark_paused -")],
  ["pausing", false, DEAD, once("mark_dead guest_panicked")],
  ["pausing", false, undefined, onSecondLook("mark_lost")],
  ["paused", false, PAUSED, nothing],
  ["paused", false, RESUMING, nothing],
  ["paused", false, SNAPSHOTTING, nothing],
  ["paused", false, RUNNING, onSecondLook("revive")],
  ["paused", false, DEAD, once("mark_dead guest_panicked")],
  ["paused", false, undefined, onSecondLook("mark_lost")],
  ["resuming", false, PAUSED, nothing],
  ["resuming", true, PAUSED, onSecondLook("mark_paused host_unavailable")],
  ["resuming", true, RESUMING, nothing],
  ["resuming", false, RUNNING, once("mark_running -")],
  ["resuming", false, DEAD, once("mark_dead guest_panicked")],
  ["resuming", false, undefined, onSecondLook("mark_lost")],
  ["missing", false, RUNNING, once("mark_running -")],
  ["missing", false, PAUSED, once("mark_paused -")],
  ["missing", false, PAUSING, nothing],
  ["missing", false, DEAD, once("mark_dead guest_panicked")],
  ["missing", false, undefined, onSecondLook("mark_lost")],
  ["error", false, DEAD, once("note_recoverable")],
  ["error", false, RUNNING, onSecondLook("revive")],
  ["error", false, PAUSED, onSecondLook("revive")],
  ["error", false, undefined, nothing],
  ["stopping", false, RUNNING, nothing],
  ["stopping", false, undefined, nothing],
  ["stopping", true, RUNNING, once("finish_destroy")],
  ["stopping", true, PAUSED, once("finish_destroy")],
  ["stopping", true, undefined, once("finish_destroy")],
  ["pending", false, undefined, nothing],
  ["pending", true, undefined, once("mark_failed create_interrupted")],
] as const)("%s (overdue: %s) while the host says %s", (status, overdue, state, expected) => {
  expect(twoLooks([row(status, overdue)], state === undefined ? [] : [held(state)])).toEqual(expected);
});

test.each([
  ["starting", false, DEAD, once("mark_dead guest_panicked")],
  ["starting", false, undefined, nothing],
  ["starting", true, undefined, onSecondLook("mark_failed create_interrupted")],
  ["error", false, RUNNING, onSecondLook("remove_remains")],
] as const)(
  "%s (overdue: %s), of one that has never run, while the host says %s",
  (status, overdue, state, expected) => {
    expect(twoLooks([unborn(status, overdue)], state === undefined ? [] : [held(state)])).toEqual(expected);
  },
);

test("what a dead sandbox can be recovered from is noted once, and forgotten when its host no longer has it", () => {
  const dead: ExpectedSandbox = { ...row("error"), recoverable: ["disk"] };
  expect(twoLooks([dead], [held(DEAD)])).toEqual(nothing);
  expect(twoLooks([dead], [])).toEqual(onSecondLook("mark_lost"));
});

test("what no row expects is an orphan on the second look, unless it is on its way out", () => {
  const other = "0190aaaa-0000-7000-8000-000000000000" as SandboxId;
  for (const state of [SandboxState.RUNNING, SandboxState.CREATING, SandboxState.DEAD]) {
    expect(twoLooks([], [held(state, other)])).toEqual(onSecondLook("remove_orphan"));
  }
  expect(twoLooks([], [held(SandboxState.DESTROYING, other)])).toEqual(nothing);
});

test("a suspicion is forgotten when the row changes between looks, or when a look does not show it", () => {
  let now = 0;
  const sightings = new Sightings(100, () => now);
  const look = (rows: ExpectedSandbox[]): number => {
    now += 200;
    const actions = planReconciliation(rows, [], sightings);
    sightings.endLook();
    return actions.length;
  };
  expect(look([row("running", false, 1)])).toBe(0);
  expect(look([row("running", false, 3)])).toBe(0);
  expect(look([])).toBe(0);
  expect(look([row("running", false, 3)])).toBe(0);
  expect(look([row("running", false, 3)])).toBe(1);
});

test("looks that follow each other closely count as one", () => {
  let now = 0;
  const sightings = new Sightings(100, () => now);
  for (const [time, expected] of [
    [0, 0],
    [1, 0],
    [99, 0],
    [100, 1],
  ] as const) {
    now = time;
    expect(planReconciliation([row("running")], [], sightings)).toHaveLength(expected);
    sightings.endLook();
  }
});

test("no status is without a plan", () => {
  for (const status of sandboxStatuses) expect(() => twoLooks([row(status, true)], [])).not.toThrow();
});
