import { mkdir, mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { newId } from "@wrenn/contract";
import { wrennLayout, writeJsonDurably } from "@wrenn/system";
import { expect, it } from "vitest";
import { enginesGid } from "../engines/users.ts";
import { findTemplate } from "./boot-files.ts";

it("lets engines read a template, and nobody list teams or their templates", async () => {
  const layout = wrennLayout(await mkdtemp(path.join(tmpdir(), "wrenn-images-")));
  try {
    const [team, template] = [newId("team"), newId("template")];
    const files = layout.template(team, template);
    const rootfs = files.rootfs("root.raw");
    await mkdir(files.directory, { recursive: true });
    await writeFile(rootfs, "");
    await writeJsonDurably(files.manifest, { rootfs: "root.raw", diskMib: 5_120 });
    await expect(findTemplate(layout, team, template)).resolves.toEqual({ type: "base", rootfs, diskMib: 5_120 });
    const teamDirectory = path.dirname(files.directory);
    for (const hidden of [teamDirectory, path.dirname(teamDirectory)]) {
      expect((await stat(hidden)).mode & 0o777).toBe(0o711);
    }
    expect(await stat(rootfs)).toMatchObject({ gid: enginesGid, mode: 0o100640 });
  } finally {
    await rm(layout.root, { recursive: true });
  }
});
