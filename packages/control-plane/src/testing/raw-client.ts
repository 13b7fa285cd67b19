/** A client for tests of the data plane: Node's own, which lets a test see and send exactly what goes over the wire. */
import { once } from "node:events";
import http from "node:http";
import type { IncomingMessage } from "node:http";
import { expect } from "vitest";
import type { TestServer } from "./test-server.ts";

export interface RawAnswer {
  readonly response: IncomingMessage;
  readonly text: () => Promise<string>;
}

export interface RawRequest {
  method?: string;
  headers?: http.OutgoingHttpHeaders;
  /** The port inside the sandbox. */
  port?: number;
  body?: Buffer | string;
}

export class RawClient {
  readonly #server: TestServer;
  readonly #sandboxId: string;

  /** Names this sandbox, and presents the server's key, unless a request's headers say otherwise. */
  constructor(server: TestServer, sandboxId: string) {
    this.#server = server;
    this.#sandboxId = sandboxId;
  }

  async send(target: string, options: RawRequest = {}): Promise<RawAnswer> {
    const request = this.start(target, options);
    request.end(options.body);
    return answerTo(request);
  }

  /** A request whose body is up to the caller. The target goes out as it is, however odd. */
  start(target: string, { method = "GET", headers = {}, port }: RawRequest = {}): http.ClientRequest {
    const { hostname, port: serverPort } = new URL(this.#server.url);
    return http.request({
      hostname,
      port: serverPort,
      path: target,
      method,
      agent: false,
      headers: {
        "Wrenn-Sandbox-Id": this.#sandboxId,
        "X-API-Key": this.#server.key,
        ...(port === undefined ? {} : { "Wrenn-Sandbox-Port": port }),
        ...headers,
      },
    });
  }

  /** Status and code of an answer that is Wrenn's own error. */
  async refusal(target: string, options: RawRequest = {}): Promise<[number | undefined, string]> {
    return refusalOf(await this.send(target, options));
  }
}

export async function answerTo(request: http.ClientRequest): Promise<RawAnswer> {
  const [response] = (await once(request, "response")) as [IncomingMessage];
  const text = async (): Promise<string> => {
    const chunks: Buffer[] = [];
    for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk);
    return Buffer.concat(chunks).toString();
  };
  return { response, text };
}

export async function refusalOf(answer: RawAnswer): Promise<[number | undefined, string]> {
  const body = JSON.parse(await answer.text()) as { error: { code: string; request_id: string } };
  expect(body.error.request_id).toBe(answer.response.headers["x-request-id"]);
  expect(answer.response.headers["wrenn-error"]).toBe(body.error.code);
  return [answer.response.statusCode, body.error.code];
}
