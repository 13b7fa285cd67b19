import { describe, expect, it } from "vitest";
import { environmentLimits, sandboxLimits } from "../limits.ts";
import { createSandboxSchema } from "./sandbox.ts";

describe("creating a sandbox", () => {
  it("defaults to the minimal template and no timeout, and leaves the size to the template", () => {
    expect(createSandboxSchema.parse({})).toEqual({
      template: "minimal",
      timeout_seconds: null,
      on_timeout: "pause",
      metadata: {},
      envs: {},
    });
  });

  it.each([
    ["memory below the least", { memory_mib: sandboxLimits.memoryMib.min - 1 }],
    ["memory above the most", { memory_mib: sandboxLimits.memoryMib.max + 1 }],
    ["no processors", { vcpus: 0 }],
    ["half a processor", { vcpus: 1.5 }],
    ["a disk smaller than the template", { disk_mib: 1 }],
    ["a number as text", { vcpus: "2" }],
    ["a field that does not exist", { cpus: 2 }],
    ["a variable whose name has an equals sign", { envs: { "A=B": "c" } }],
    ["a variable whose value has a NUL", { envs: { A: "b\0c" } }],
    ["more environment than a process can have", { envs: { A: "x".repeat(environmentLimits.maxBytes) } }],
  ])("refuses %s", (_what, input) => {
    expect(createSandboxSchema.safeParse(input).success).toBe(false);
  });
});
