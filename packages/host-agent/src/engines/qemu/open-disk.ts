/** Whether the file that QEMU would open again under its disk's name is the one that it has open. */
import { WrennError } from "@wrenn/contract";
import { fileIdentity, openFileIdentities } from "@wrenn/system";
import { z } from "zod";

const nodesSchema = z.array(z.object({ drv: z.string(), ro: z.boolean(), file: z.string() }));

/**
 * QEMU opens its disk again by its name, read-only, when another is laid over it. If that name led to another file by then, QEMU would go
 * on with it in the disk's place and say nothing, and all that the guest has written would be lost.
 * @param nodes what `query-named-block-nodes` answers
 * @throws WrennError `engine_failed`
 */
export async function assertDiskInPlace(pid: number, nodes: unknown): Promise<void> {
  const written = nodesSchema.parse(nodes).filter(({ drv, ro }) => drv === "file" && !ro);
  const open = await openFileIdentities(pid);
  for (const { file } of written) {
    const there = await fileIdentity(file);
    if (there !== null && open.has(there)) continue;
    throw new WrennError("engine_failed", { message: `${file} is no longer the file that QEMU writes to.` });
  }
}
