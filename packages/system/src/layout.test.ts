import { diskFormats, minimalTemplateId, parseUuid, platformTeamId } from "@wrenn/contract";
import { describe, expect, it } from "vitest";
import { layoutFromEnvironment, socketPathsFit, wrennLayout } from "./layout.ts";

describe("the layout", () => {
  it("puts template files under their team and template", () => {
    const layout = wrennLayout("/w");
    expect(layout.template(platformTeamId, minimalTemplateId).rootfs("rootfs.ext4")).toBe(
      "/w/images/teams/00000000-0000-0000-0000-000000000000/00000000-0000-0000-0000-000000000000/rootfs.ext4",
    );
  });

  it("keeps everything of a sandbox in one directory", () => {
    const id = parseUuid("sandbox", "01890000-0000-7000-8000-000000000000");
    const { directory, jail, ...files } = wrennLayout("/w").sandbox(id);
    const ofSandbox = Object.values(files).flatMap((file) =>
      typeof file === "string" ? [file] : diskFormats.map(file),
    );
    const all = [...ofSandbox, ...Object.values(jail)];
    expect(all.every((file) => file.startsWith(`${directory}/`))).toBe(true);
    expect(new Set(all).size).toBe(all.length);
  });

  it("knows when socket paths would be too long for the kernel", () => {
    expect(socketPathsFit(wrennLayout("/var/lib/wrenn"))).toBe(true);
    expect(socketPathsFit(wrennLayout(`/${"x".repeat(80)}`))).toBe(false);
  });

  it("follows WRENN_DIR", () => {
    expect(layoutFromEnvironment({ WRENN_DIR: "/elsewhere" }).root).toBe("/elsewhere");
    expect(layoutFromEnvironment({}).root).toBe("/var/lib/wrenn");
  });
});
