/** One sandbox: what is known of it, and what can be done in it. */
import { dataPlaneHeaders, type Sandbox as SandboxInfo, sandboxSchema, type SandboxStatus } from "@wrenn/contract";
import { z } from "zod";
import type { Api } from "./api.ts";
import { CommandsClient } from "./commands.ts";
import { GuestConnection } from "./guest-connection.ts";
import { sandboxPath } from "./paths.ts";

export class Sandbox {
  readonly id: string;
  readonly commands: CommandsClient;
  readonly #api: Api;
  #info: SandboxInfo;

  constructor(api: Api, info: SandboxInfo) {
    this.id = info.id;
    this.#api = api;
    this.#info = info;
    this.commands = new CommandsClient(new GuestConnection(api, info.id));
  }

  /** As the server last described it; see `refresh`. */
  get info(): SandboxInfo {
    return this.#info;
  }

  get status(): SandboxStatus {
    return this.#info.status;
  }

  /** Asks the server again. */
  async refresh(options: { signal?: AbortSignal } = {}): Promise<SandboxInfo> {
    this.#info = await this.#api.send({ method: "GET", path: this.#path, answer: sandboxSchema, ...options });
    return this.#info;
  }

  /** Destroys the sandbox with all it holds. Resolves once nothing of it is left. */
  async destroy(options: { signal?: AbortSignal } = {}): Promise<void> {
    await this.#api.send({ method: "DELETE", path: this.#path, answer: z.unknown(), ...options });
  }

  /** Sends an HTTP request to a port of the sandbox. `path` begins with a slash. The answer is the sandbox's own. */
  fetch(port: number, path: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    headers.set(dataPlaneHeaders.sandboxId, this.id);
    headers.set(dataPlaneHeaders.port, String(port));
    headers.set("x-api-key", this.#api.apiKey);
    return this.#api.fetch(`${this.#api.url}${path}`, { ...init, headers });
  }

  get #path(): string {
    return sandboxPath(this.id);
  }
}
