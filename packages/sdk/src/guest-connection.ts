/** A sandbox's guest agent, reached through the server's data plane. */
import { type Client, createClient, type Transport } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import {
  dataPlaneHeaders,
  guestAgentPort,
  isErrorCode,
  processProto,
  sandboxSchema,
  WrennError,
} from "@wrenn/contract";
import type { Api, FetchFunction } from "./api.ts";
import { parseErrorBody } from "./errors.ts";
import { sandboxPath } from "./paths.ts";

export class GuestConnection {
  readonly processes: Client<typeof processProto.Process>;
  readonly #api: Api;
  readonly #sandboxId: string;

  constructor(api: Api, sandboxId: string) {
    this.#api = api;
    this.#sandboxId = sandboxId;
    this.processes = createClient(processProto.Process, this.#transport());
  }

  /**
   * Asks the server whether the sandbox still runs.
   * @throws WrennError why it does not: `guest_panicked`, `vm_died`, `sandbox_not_found`, …; or `server_unreachable`.
   */
  async assertRunning(signal: AbortSignal | undefined): Promise<void> {
    const { status, status_reason: reason } = await this.#api.send({
      method: "GET",
      path: sandboxPath(this.#sandboxId),
      answer: sandboxSchema,
      signal,
    });
    switch (status) {
      case "running":
      case "missing":
        return;
      case "pending":
      case "starting":
        throw new WrennError("sandbox_state_conflict", { message: `The sandbox is ${status}.` });
      case "stopping":
      case "stopped":
        throw new WrennError("sandbox_not_found", { message: "The sandbox has been destroyed." });
      case "error": {
        const code = reason?.code ?? "vm_died";
        throw isErrorCode(code)
          ? new WrennError(code, reason === null ? {} : { message: reason.message })
          : new WrennError("vm_died", { message: `${reason?.message ?? "The sandbox failed."} (${code})` });
      }
    }
  }

  #transport(): Transport {
    return createConnectTransport({
      baseUrl: this.#api.url,
      // Output is bytes: JSON would carry it as base64.
      useBinaryFormat: true,
      fetch: this.#fetch,
    });
  }

  readonly #fetch: FetchFunction = async (input, init) => {
    const headers = new Headers(init?.headers);
    headers.set(dataPlaneHeaders.sandboxId, this.#sandboxId);
    headers.set(dataPlaneHeaders.port, String(guestAgentPort));
    headers.set("x-api-key", this.#api.apiKey);
    const response = await this.#api.fetch(input, { ...init, headers });
    if (response.ok) return response;
    // The RPC library reads a failed answer as the guest agent's. Wrenn's own answers have to be recognised before it.
    const text = await response.clone().text();
    const error = parseErrorBody(text);
    if (error !== null) throw error;
    return response;
  };
}
