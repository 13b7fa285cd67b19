import { newId, platformTeamId } from "@wrenn/contract";
import { expect, test } from "vitest";
import type { HostLoad } from "../store/reservations.ts";
import type { HostRow } from "../store/schema.ts";
import { leastLoaded } from "./scheduler.ts";

const ask = { vcpus: 1, memoryMib: 512 };

function load(name: string, host: Partial<HostRow>, usedMemoryMib = 0, usedVcpus = 0): HostLoad {
  return {
    host: {
      id: newId("host"),
      name,
      type: "regular",
      team_id: platformTeamId,
      address: `unix:/${name}`,
      status: "online",
      cpu_count: 4,
      memory_mib: 16_384,
      agent_version: null,
      engine: null,
      engine_version: null,
      engine_reason: null,
      cpu: null,
      disk_format: null,
      disk_reason: null,
      disk_formats: [],
      memory_backends: [],
      created_at: new Date(0),
      last_seen_at: new Date(0),
      contact_lost_at: null,
      ...host,
    },
    usedMemoryMib,
    usedVcpus,
  };
}

function rank(...loads: HostLoad[]): string[] {
  return leastLoaded.rank(loads, ask).map(({ name }) => name);
}

test("the host whose scarcer resource is least used comes first", () => {
  expect(rank(load("memory", {}, 8000), load("empty", {}), load("processors", {}, 0, 60))).toEqual([
    "empty",
    "memory",
    "processors",
  ]);
});

test("a host without room is not tried", () => {
  expect(rank(load("full", {}, 15_500), load("busy", {}, 0, 64))).toEqual([]);
  expect(
    rank(load("small", { memory_mib: 512 + 512 + 384 }), load("smaller", { memory_mib: 512 + 512 + 383 })),
  ).toEqual(["small"]);
});

test("hosts that are away come last, however much room they had: they may be back", () => {
  const away = load("away", { contact_lost_at: new Date(0) });
  const unknown = load("unknown", { status: "unreachable", cpu_count: 0, memory_mib: 0 });
  expect(rank(unknown, away, load("here", {}, 12_000))).toEqual(["here", "away", "unknown"]);
});
