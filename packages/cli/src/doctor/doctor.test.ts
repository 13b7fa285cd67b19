import { describe, expect, it } from "vitest";
import { WrennError } from "@wrenn/contract";
import { wrennLayout } from "@wrenn/system";
import { examine, failed, ok, warning } from "./check.ts";
import { controllersOf } from "./engine-checks.ts";
import { checkNode } from "./machine-checks.ts";
import { renderDoctorReport } from "./render.ts";

describe("Node's version", () => {
  it.each(["20.19.0", "20.20.2", "22.12.0", "24.0.0", "25.1.0"])("%s is supported", (version) => {
    expect(checkNode(version).status).toBe("ok");
  });

  it.each(["18.20.8", "20.18.3", "21.7.0", "22.11.0", "23.11.0"])("%s is not, and says what is", (version) => {
    expect(checkNode(version)).toMatchObject({ status: "failed", remedy: expect.stringContaining("22.12") });
  });
});

describe("cgroup hierarchies", () => {
  it("are told apart by the mounts in effect", () => {
    const mounts = [
      "30 24 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
      "31 24 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
      "32 24 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct",
    ].join("\n");
    const { older, unifiedMount } = controllersOf(mounts);
    expect(unifiedMount).toBe("/sys/fs/cgroup/unified");
    expect(older).toEqual(expect.arrayContaining(["memory", "cpu"]));
  });
});

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
    expect(await examine(throwing(error), layout)).toMatchObject({ status: "failed", remedy: error.suggestion });
  });

  it("names sudo where it is a matter of rights", async () => {
    const error = Object.assign(new Error("EACCES: permission denied"), { code: "EACCES" });
    expect(await examine(throwing(error), layout)).toMatchObject({
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
      { name: "kvm", ...warning("no /dev/kvm", "Use another machine.") },
      { name: "template", ...failed("missing", "wrenn setup") },
    ],
  };

  it("lines up names and findings, with each remedy below", () => {
    expect(renderDoctorReport(report, { terminal: false })).toBe(
      [
        "ok       node      20.20.2",
        "warning  kvm       no /dev/kvm",
        "                   → Use another machine.",
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
    for (const symbol of ["✓", "!", "✗"]) expect(text).toContain(symbol);
  });
});
