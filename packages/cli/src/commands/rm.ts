/** `wrenn rm`: destroys sandboxes by id. */
import { asWrennError } from "@wrenn/contract";
import { Sandbox } from "@wrenn/sdk";
import { layoutFromEnvironment } from "@wrenn/system";
import { connectToServer } from "../local-server.ts";
import { printJson, reportError } from "../terminal/messages.ts";

/** Tries all of them; exits with 1 when any could not be destroyed. */
export async function removeSandboxes(ids: readonly string[], options: { json: boolean }): Promise<number> {
  const { api } = await connectToServer(layoutFromEnvironment());
  const destroyed: string[] = [];
  const failed: Record<string, unknown>[] = [];
  for (const id of ids) {
    try {
      await Sandbox.destroy(id, api);
      destroyed.push(id);
      if (!options.json) process.stdout.write(`${id}\n`);
    } catch (error) {
      failed.push({ id, ...asWrennError(error).toBody() });
      if (!options.json) reportError(error, { json: false });
    }
  }
  if (options.json) printJson({ destroyed, failed });
  return failed.length === 0 ? 0 : 1;
}
