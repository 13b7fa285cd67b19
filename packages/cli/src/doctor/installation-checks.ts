/** What set-up has made, and whether the server runs. */
import { access, stat } from "node:fs/promises";
import path from "node:path";
import { minimalTemplateId, platformTeamId, baseTemplateSchema } from "@wrenn/contract";
import { readBootManifest } from "@wrenn/images";
import { type Layout, readJson } from "@wrenn/system";
import { readLiveServer } from "../server/server-record.ts";
import { missingPackages } from "../setup/programs.ts";
import { type Examination, failed, ok, type Outcome } from "./check.ts";
import { inMebibytes } from "./machine-checks.ts";

const setUp = "wrenn setup";

export const installationExaminations: readonly Examination[] = [
  {
    name: "packages",
    look: async () => {
      const missing = await missingPackages();
      if (missing.length === 0) return ok("all that is needed is installed");
      const command = `apt-get install --no-install-recommends ${missing.join(" ")}`;
      return failed(`missing: ${missing.join(", ")}`, `${setUp}, or: ${command}`);
    },
  },
  { name: "kernel", look: checkBootFiles },
  { name: "template", look: checkTemplate },
  {
    name: "server",
    look: async (layout) => {
      const server = await readLiveServer(layout);
      return ok(
        server === null ? "not running; `wrenn up` starts it" : `${server.state}, ${server.url ?? "no address yet"}`,
      );
    },
  },
];

async function checkBootFiles(layout: Layout): Promise<Outcome> {
  const manifest = await readBootManifest(layout);
  if (manifest === null) return failed("there is none yet", setUp);
  const files = [manifest.kernel, manifest.initramfs].map((file) => path.join(layout.boot, file));
  for (const file of files) {
    const there = await access(file).then(
      () => true,
      () => false,
    );
    if (!there) return failed(`${file} is missing`, setUp);
  }
  return ok(`${manifest.kernelVersion}, guest agent ${manifest.guestAgent.slice(0, 12)}`);
}

async function checkTemplate(layout: Layout): Promise<Outcome> {
  const template = layout.template(platformTeamId, minimalTemplateId);
  const manifest = baseTemplateSchema.safeParse(await readJson(template.manifest));
  if (!manifest.success) return failed("the built-in template has not been made yet", setUp);
  const file = template.rootfs(manifest.data.rootfs);
  const found = await stat(file).catch(() => null);
  return found === null
    ? failed(`${file} is missing`, setUp)
    : ok(`minimal, ${inMebibytes(found.blocks * 512)} on disk (${manifest.data.rootfs})`);
}
