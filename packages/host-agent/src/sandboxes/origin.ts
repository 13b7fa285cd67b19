/** The frozen state that a new sandbox is started from. */
import { WrennError } from "@wrenn/contract";
import { findTemplate } from "../disks/boot-files.ts";
import type { Engine } from "../engines/engine.ts";
import type { HeldGeneration } from "../memory/generations.ts";
import type { GenerationManifest } from "../memory/manifest.ts";
import type { SandboxContext } from "./context.ts";
import type { CreateRequest } from "./create.ts";
import type { GoldenSnapshots } from "./golden-snapshots.ts";

type OriginRequest = Pick<CreateRequest, "templateTeamId" | "templateId" | "vcpus" | "memoryMib" | "diskMib">;

/**
 * Held until the sandbox's own journal names it.
 * @throws WrennError `template_not_found`, `invalid_request` for sizes that the template does not allow, or why it cannot be made
 */
export async function findOrigin(
  { layout, generations }: SandboxContext,
  golden: GoldenSnapshots,
  engine: Engine,
  request: OriginRequest,
): Promise<HeldGeneration> {
  const { templateTeamId: teamId, templateId, vcpus, memoryMib, diskMib } = request;
  const files = await findTemplate(layout, teamId, templateId);
  if (files.type === "snapshot") {
    const origin = await generations.hold(files.generation);
    assertSameSizes(request, origin.manifest);
    return origin;
  }
  if (diskMib < files.diskMib) {
    throw new WrennError("invalid_request", {
      message: `diskMib is ${diskMib}; this template needs at least ${files.diskMib}.`,
      details: { field: "diskMib", min: files.diskMib },
    });
  }
  return golden.ensure(engine, { template: { teamId, templateId }, files, vcpus, memoryMib, diskMib });
}

/** A frozen VM is as large as it was. */
function assertSameSizes(request: OriginRequest, manifest: GenerationManifest): void {
  for (const name of ["vcpus", "memoryMib", "diskMib"] as const) {
    if (request[name] === manifest[name]) continue;
    throw new WrennError("invalid_request", {
      message: `${name} is ${request[name]}; sandboxes of this snapshot have ${manifest[name]}.`,
      details: { field: name, expected: manifest[name] },
    });
  }
}
