/** The entrance to a Wrenn server: one client per server and key. */
import type { Health } from "@wrenn/contract";
import { Api, type FetchFunction } from "./api.ts";
import { SandboxesClient } from "./sandboxes.ts";

export interface WrennClientOptions {
  /** Address of the control plane, such as `http://127.0.0.1:7070`. */
  url: string;
  /** A key of the team whose sandboxes are meant: `wrn_` and 40 hex digits. */
  apiKey: string;
  /** What sends requests; default the global `fetch`. */
  fetch?: FetchFunction;
}

export class WrennClient {
  readonly sandboxes: SandboxesClient;
  readonly #api: Api;

  constructor(options: WrennClientOptions) {
    this.#api = new Api(options.url, options.apiKey, options.fetch ?? fetch);
    this.sandboxes = new SandboxesClient(this.#api);
  }

  /** Whether the server, its database and its hosts answer. Needs no valid key. */
  health(options: { signal?: AbortSignal } = {}): Promise<Health> {
    return this.#api.health(options.signal);
  }
}
