/** The sandbox a verb is about, on the server there is. Only `run` and `create` start one: elsewhere it has nothing to show. */
import { type ConnectionOptions, type RequestOptions, Sandbox } from "@wrenn/sdk";
import { layoutFromEnvironment } from "@wrenn/system";
import { connectToServer } from "./local-server.ts";
import { resolveSandboxId } from "./sandbox-ids.ts";

/**
 * @param given an id, or a part of one
 * @throws WrennError `sandbox_not_found`, `invalid_id`, `server_unreachable`
 */
export async function openSandbox(given: string, options: RequestOptions = {}): Promise<Sandbox> {
  const { api } = await connectToServer(layoutFromEnvironment());
  const id = await resolveSandboxId(given, () => listIds(api, options));
  return Sandbox.connect(id, { ...api, ...options });
}

/** Of all that have not stopped. */
export async function listIds(api: ConnectionOptions, options: RequestOptions = {}): Promise<string[]> {
  const ids: string[] = [];
  for await (const { id } of Sandbox.list({ ...api, ...options })) ids.push(id);
  return ids;
}
