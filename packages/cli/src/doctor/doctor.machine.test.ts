/** The whole doctor on this machine, as it is. */
import path from "node:path";
import { layoutFromEnvironment, runUnchecked } from "@wrenn/system";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { repositoryRoot } from "../server/installation.ts";
import { runDoctor } from "./doctor.ts";

const reportSchema = z.object({
  ok: z.boolean(),
  checks: z.array(z.object({ name: z.string(), status: z.enum(["ok", "warning", "failed", "unneeded"]) })),
});

const program = path.join(repositoryRoot, "packages/cli/dist/main.js");

/** What only Firecracker needs. */
const ofFirecracker = ["firecracker", "loop devices", "device-mapper"];

describe("on this machine", () => {
  it("every check comes to a conclusion, and whatever is wrong says what mends it", async () => {
    const { checks } = await runDoctor(layoutFromEnvironment(), { WRENN_ENGINE: "tcg" });
    expect(new Set(checks.map(({ name }) => name)).size).toBe(checks.length);
    // One that could not be made at all says so without a remedy.
    const helpless = checks.filter(
      ({ status, remedy }) => ["warning", "failed"].includes(status) && remedy === undefined,
    );
    expect(helpless).toEqual([]);
  });

  it("what only another engine needs is never a failure", async () => {
    const { checks } = await runDoctor(layoutFromEnvironment(), { WRENN_ENGINE: "tcg" });
    for (const name of ofFirecracker) {
      expect(checks.find((check) => check.name === name)?.status).toMatch(/^(?:ok|unneeded)$/);
    }
  });

  it("what is demanded and cannot run fails, in the exit code too", async () => {
    const nowhere = { WRENN_FIRECRACKER_BIN: "/nowhere/firecracker", WRENN_JAILER_BIN: "/nowhere/jailer" };
    const env = { ...process.env, WRENN_ENGINE: "firecracker", ...nowhere };
    const { exitCode, stdout } = await runUnchecked(process.execPath, [program, "doctor", "--json"], { env });
    const report = reportSchema.parse(JSON.parse(stdout));
    expect([exitCode, report.ok]).toEqual([1, false]);
    expect(report.checks).toContainEqual(expect.objectContaining({ name: "firecracker", status: "failed" }));
    for (const name of ofFirecracker) {
      expect(report.checks.find((check) => check.name === name)?.status).not.toBe("unneeded");
    }
  });
});
