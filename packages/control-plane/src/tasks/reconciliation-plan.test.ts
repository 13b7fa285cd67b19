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
  return { id, status, version, overdue };
}

function held(state: hostAgentProto.SandboxState, sandboxId: string = id): HeldSandbox {
  return state === SandboxState.DEAD
    ? { sandboxId, state, engine: "e", death: create(DeathSchema, { code: "guest_panicked", message: "panic" }) }
    : { sandboxId, state, engine: "e" };
}

/** What is done on the first look and on one that comes later and shows the same. */
function twoLooks(rows: ExpectedSandbox[], list: HeldSandbox[]): string[][] {
  let now = 0;
  const sightings = new Sightings(100, () => now);
  return [0, 200].map((time) => {
    now = time;
    const actions = planReconciliation(rows, list, sightings);
    sightings.endLook();
    return actions.map((action) => (action.do === "mark_error" ? `mark_error ${action.reason.code}` : action.do));
  });
}

const nothing = [[], []];
const once = (action: string): string[][] => [[action], [action]];
const onSecondLook = (action: string): string[][] => [[], [action]];

test.each([
  ["starting", false, SandboxState.CREATING, nothing],
  ["starting", true, SandboxState.CREATING, nothing],
  ["starting", false, SandboxState.RUNNING, once("mark_running")],
  ["starting", false, SandboxState.DEAD, once("mark_error guest_panicked")],
  ["starting", false, undefined, nothing],
  ["starting", true, undefined, onSecondLook("mark_error create_interrupted")],
  ["running", false, SandboxState.RUNNING, nothing],
  ["running", false, SandboxState.CREATING, nothing],
  ["running", false, SandboxState.DESTROYING, nothing],
  ["running", false, SandboxState.DEAD, once("mark_error guest_panicked")],
  ["running", false, undefined, onSecondLook("mark_error vm_died")],
  ["missing", false, SandboxState.RUNNING, once("mark_running")],
  ["missing", false, SandboxState.DEAD, once("mark_error guest_panicked")],
  ["missing", false, undefined, onSecondLook("mark_error vm_died")],
  ["stopping", false, SandboxState.RUNNING, nothing],
  ["stopping", false, undefined, nothing],
  ["stopping", true, SandboxState.RUNNING, once("finish_destroy")],
  ["stopping", true, undefined, once("finish_destroy")],
  ["pending", false, undefined, nothing],
  ["pending", true, undefined, once("mark_error create_interrupted")],
] as const)("%s (overdue: %s) while the host says %s", (status, overdue, state, expected) => {
  expect(twoLooks([row(status, overdue)], state === undefined ? [] : [held(state)])).toEqual(expected);
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
