import { setTimeout as delay } from "node:timers/promises";
import { minimalTemplateId, newId, platformTeamId, WrennError } from "@wrenn/contract";
import { wrennLayout } from "@wrenn/system";
import { expect, it } from "vitest";
import { SandboxEntries } from "./entries.ts";
import type { Journal } from "./journal.ts";

const journal: Journal = {
  version: 2,
  sandboxId: newId("sandbox"),
  teamId: platformTeamId,
  template: { teamId: platformTeamId, templateId: minimalTemplateId },
  vcpus: 1,
  memoryMib: 512,
  diskMib: 5_120,
  engine: "qemu-tcg",
  createdAt: "2026-01-02T03:04:05.678Z",
  state: "paused",
  generation: newId("generation"),
  pausedAt: "2026-01-02T03:04:05.678Z",
  steps: [],
};

it("an operation that is aborted says what for, whatever it was doing", async () => {
  const entries = new SandboxEntries(wrennLayout("/nowhere"));
  const entry = entries.add(journal);
  // Node's own error for what was aborted is not the reason, but has it for its cause.
  const operation = entries.operate(entry, "resume", async (signal) => delay(60_000, undefined, { signal }));
  entry.operation?.abort.abort(new WrennError("sandbox_state_conflict", { message: "It was destroyed." }));
  await expect(operation).rejects.toMatchObject({ code: "sandbox_state_conflict", message: "It was destroyed." });
  expect(entry.operation).toBeNull();
});
