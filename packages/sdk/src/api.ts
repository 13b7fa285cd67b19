/** Requests of the public API: sends JSON, checks the answer's shape, turns every failure into a WrennError. */
import { type Health, healthSchema, WrennError } from "@wrenn/contract";
import type { z } from "zod";
import { errorFromResponse } from "./errors.ts";

export type FetchFunction = typeof fetch;

export interface ApiRequest<Schema extends z.ZodType> {
  method: "GET" | "POST" | "DELETE";
  /** Path and query, beginning with a slash. */
  path: string;
  body?: unknown;
  /** What a successful answer looks like. */
  answer: Schema;
  signal?: AbortSignal | undefined;
}

export class Api {
  /** Without a slash at its end. */
  readonly url: string;
  readonly apiKey: string;
  readonly #fetch: FetchFunction;

  constructor(url: string, apiKey: string, fetchFunction: FetchFunction) {
    this.url = url.replace(/\/+$/, "");
    this.apiKey = apiKey;
    this.#fetch = fetchFunction;
  }

  async send<Schema extends z.ZodType>(request: ApiRequest<Schema>): Promise<z.output<Schema>> {
    const response = await this.fetch(`${this.url}${request.path}`, {
      method: request.method,
      headers: {
        "x-api-key": this.apiKey,
        accept: "application/json",
        ...(request.body === undefined ? {} : { "content-type": "application/json" }),
      },
      ...(request.body === undefined ? {} : { body: JSON.stringify(request.body) }),
      signal: request.signal ?? null,
    });
    if (!response.ok) throw await errorFromResponse(response);
    // Read also where nothing is expected: an unread body keeps its connection from being used again.
    const text = await response.text();
    return parseAnswer(request, text);
  }

  async health(signal?: AbortSignal): Promise<Health> {
    const response = await this.fetch(`${this.url}/health`, { signal: signal ?? null });
    const text = await response.text();
    // A degraded server answers 503 with the same body.
    return parseAnswer({ method: "GET", path: "/health", answer: healthSchema }, text);
  }

  /**
   * `fetch`, with a server that cannot be reached told apart from everything else.
   * @throws WrennError `server_unreachable` (503)
   */
  readonly fetch: FetchFunction = async (input, init) => {
    try {
      return await this.#fetch(input, init);
    } catch (cause) {
      if (init?.signal?.aborted === true) throw cause;
      throw new WrennError("server_unreachable", { message: `The server at ${this.url} does not answer.`, cause });
    }
  };
}

function parseAnswer<Schema extends z.ZodType>(request: ApiRequest<Schema>, text: string): z.output<Schema> {
  const parsed = request.answer.safeParse(parseJson(text));
  if (parsed.success) return parsed.data;
  throw new WrennError("internal", {
    message: `${request.method} ${request.path} was answered with something that is not of the expected form.`,
    suggestion: "Use a client and a server of the same version.",
    cause: parsed.error,
  });
}

function parseJson(text: string): unknown {
  try {
    return text === "" ? undefined : (JSON.parse(text) as unknown);
  } catch {
    return undefined;
  }
}
