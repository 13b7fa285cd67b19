/** Making, finding and destroying the sandboxes of a team. */
import {
  createdSandboxSchema,
  listSandboxesSchema,
  pageLimits,
  type SandboxPage,
  sandboxSchema,
} from "@wrenn/contract";
import { z } from "zod";
import type { Api } from "./api.ts";
import { sandboxPath } from "./paths.ts";
import { Sandbox } from "./sandbox.ts";

export interface CreateSandboxOptions {
  /** Name of a template; default `minimal`. */
  template?: string;
  /** Whole processors; default 1. Ranges are `sandboxLimits` of the contract. */
  vcpus?: number;
  /** MiB; default 512. */
  memoryMib?: number;
  /** MiB; default 5120. */
  diskMib?: number;
  /** Yours to find the sandbox by; Wrenn does not interpret it. */
  metadata?: Record<string, string>;
  /** Environment of every process started in the sandbox. */
  envs?: Record<string, string>;
  /** Stops waiting. The server goes on creating: list the sandboxes to find it. */
  signal?: AbortSignal;
}

export interface RequestOptions {
  signal?: AbortSignal;
}

export class SandboxesClient {
  readonly #api: Api;

  constructor(api: Api) {
    this.#api = api;
  }

  /**
   * Creates a sandbox and resolves once its guest answers.
   * @throws WrennError `invalid_request` for sizes out of range or a bad name, `no_capacity`, `guest_boot_timeout` and
   * others of the error registry.
   */
  async create(options: CreateSandboxOptions = {}): Promise<Sandbox> {
    const { template, vcpus, memoryMib, diskMib, metadata, envs, signal } = options;
    const created = await this.#api.send({
      method: "POST",
      path: "/v1/sandboxes",
      // JSON leaves out what is undefined, so that the server's defaults hold.
      body: { template, vcpus, memory_mib: memoryMib, disk_mib: diskMib, metadata, envs },
      answer: createdSandboxSchema,
      signal,
    });
    return new Sandbox(this.#api, created);
  }

  /** @throws WrennError `sandbox_not_found`, or `invalid_id` for what is no sandbox id. */
  async get(id: string, options: RequestOptions = {}): Promise<Sandbox> {
    const info = await this.#api.send({ method: "GET", path: sandboxPath(id), answer: sandboxSchema, ...options });
    return new Sandbox(this.#api, info);
  }

  /** Every sandbox of the team that has not been destroyed, newest first. */
  async list(options: RequestOptions = {}): Promise<Sandbox[]> {
    const sandboxes: Sandbox[] = [];
    let cursor: string | null = null;
    do {
      const query: string = cursor === null ? "" : `&cursor=${encodeURIComponent(cursor)}`;
      const page: SandboxPage = await this.#api.send({
        method: "GET",
        path: `/v1/sandboxes?limit=${pageLimits.max}${query}`,
        answer: listSandboxesSchema,
        ...options,
      });
      sandboxes.push(...page.sandboxes.map((info) => new Sandbox(this.#api, info)));
      cursor = page.next_cursor;
    } while (cursor !== null);
    return sandboxes;
  }

  /** Destroys a sandbox with all it holds, from any status. Resolves once nothing of it is left. */
  async destroy(id: string, options: RequestOptions = {}): Promise<void> {
    await this.#api.send({ method: "DELETE", path: sandboxPath(id), answer: z.unknown(), ...options });
  }
}
