/** `/v1/sandboxes/{id}/files` of a server under test, and the guest's files as this process finds them. */
import { once } from "node:events";
import http from "node:http";
import { readdir } from "node:fs/promises";
import { expect } from "vitest";
import type { ApiServer } from "./api-server.ts";

export type Query = Readonly<Record<string, string | number | boolean>>;

export interface RawUpload {
  readonly request: http.ClientRequest;
  /** Rejects when the connection ends without one. */
  readonly answered: Promise<http.IncomingMessage>;
}

export class FilesApi {
  readonly #api: () => ApiServer;

  /** Asks for the server when it is needed, so that it can be made before the server has been started. */
  constructor(api: () => ApiServer) {
    this.#api = api;
  }

  /** Where this process finds a file of the guest. */
  readonly outside = (file: string): string => this.#api().guest.outside(file);

  /** `operation` is empty for the file itself, or begins with a slash. */
  target(operation: string, query: Query = {}): string {
    const parameters = new URLSearchParams();
    for (const [name, value] of Object.entries(query)) parameters.set(name, String(value));
    return `/v1/sandboxes/${this.#api().sandbox.id}/files${operation}?${parameters.toString()}`;
  }

  /** Status and parsed body. */
  async call(method: string, operation: string, query: Query = {}): Promise<[number, unknown]> {
    const { status, body } = await this.#api().server.call(method, this.target(operation, query));
    return [status, body];
  }

  async post(operation: string, ask: unknown): Promise<[number, unknown]> {
    const { status, body } = await this.#api().server.post(this.target(operation), ask);
    return [status, body];
  }

  async fetch(operation: string, query: Query, init: RequestInit & { duplex?: "half" } = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    headers.set("X-API-Key", this.#api().server.key);
    return fetch(`${this.#api().server.url}${this.target(operation, query)}`, { ...init, headers });
  }

  async get(path: string, headers: Record<string, string> = {}): Promise<Response> {
    return this.fetch("", { path }, { headers });
  }

  async put(path: string, body: RequestInit["body"], headers: Record<string, string> = {}): Promise<Response> {
    return this.fetch("", { path }, { method: "PUT", body: body ?? null, headers, duplex: "half" });
  }

  /** Node's own client, for what `fetch` does not let a test do. */
  start(method: string, operation: string, query: Query, headers: http.OutgoingHttpHeaders = {}): http.ClientRequest {
    return http.request(`${this.#api().server.url}${this.target(operation, query)}`, {
      method,
      agent: false,
      headers: { "X-API-Key": this.#api().server.key, ...headers },
    });
  }

  /** An upload whose body is up to the test. */
  startUpload(operation: string, query: Query, headers: http.OutgoingHttpHeaders = {}): RawUpload {
    const request = this.start("PUT", operation, query, headers);
    const answered = once(request, "response").then(([response]) => response as http.IncomingMessage);
    answered.catch(() => undefined);
    request.on("error", () => undefined);
    return { request, answered };
  }

  /** Names in a directory of the guest. */
  async namesIn(directory: string): Promise<string[]> {
    return (await readdir(this.outside(directory))).sort();
  }

  /** Uploads of the guest agent that are not whole yet. */
  async unfinished(directory: string): Promise<string[]> {
    return (await this.namesIn(directory)).filter((name) => name.startsWith(".wrenn-"));
  }
}

/** What a refusal looks like, as `FilesApi.call` gives it. */
export function refused(status: number, code: string): [number, unknown] {
  return [status, { error: expect.objectContaining({ code }) }];
}

export async function refusalOf(response: Response): Promise<[number, unknown]> {
  return [response.status, await response.json()];
}
