import { describe, expect, it } from "vitest";
import { WrennError } from "@wrenn/contract";
import { wrennLayout } from "@wrenn/system";
import { examine, failed, ok, warning } from "./check.ts";
import { needsOf } from "./needs.ts";
import { renderDoctorReport } from "./render.ts";

const needs = needsOf({}, { firecracker: null, jailer: null });

describe("a check that cannot be made", () => {
  const layout = wrennLayout("/nonexistent");
  const throwing = (error: unknown) => ({
    name: "thing",
    look: async () => {
      throw error;
    },
  });

  it("is a failure with what to do", async () => {
    const error = new WrennError("engine_missing");
    expect(await examine(throwing(error), layout, needs)).toMatchObject({
      status: "failed",
      remedy: error.suggestion,
    });
  });

  it("names sudo where it is a matter of rights", async () => {
    const error = Object.assign(new Error("EACCES: permission denied"), { code: "EACCES" });
    expect(await examine(throwing(error), layout, needs)).toMatchObject({
      status: "failed",
      remedy: expect.stringContaining("sudo"),
    });
  });
});

describe("a report", () => {
  const report = {
    ok: false,
    checks: [
      { name: "node", ...ok("20.20.2") },
      { name: "kvm", ...warning("no /dev/kvm", "Use another machine.", "Guests are slow without it.") },
      { name: "jailer", status: "unneeded" as const, finding: "there is none; not needed" },
      { name: "template", ...failed("missing", "wrenn setup") },
    ],
  };

  it("lines up names and findings, with the reason and the remedy of each below", () => {
    expect(renderDoctorReport(report, { terminal: false })).toBe(
      [
        "ok       node      20.20.2",
        "warning  kvm       no /dev/kvm",
        "                   Guests are slow without it.",
        "                   → Use another machine.",
        "–        jailer    there is none; not needed",
        "FAILED   template  missing",
        "                   → wrenn setup",
        "",
        "Sandboxes cannot run here yet: 1 check failed.",
        "",
      ].join("\n"),
    );
  });

  it("has symbols on a terminal", () => {
    const text = renderDoctorReport(report, { terminal: true });
    for (const symbol of ["✓", "!", "✗", "–"]) expect(text).toContain(symbol);
  });
});
