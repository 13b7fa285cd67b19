/** The few questions the command line asks the host agent itself, on its unix socket: what it is, and what it holds. */
import { request } from "node:http";
import { type DescMessage, fromJson, type JsonValue, type MessageShape } from "@bufbuild/protobuf";
import { deadlines, hostAgentProto, WrennError } from "@wrenn/contract";
import type { Layout } from "@wrenn/system";

export class HostAgentClient {
  readonly #socketPath: string;

  constructor(layout: Layout) {
    this.#socketPath = layout.hostAgentSocket;
  }

  async getHost(): Promise<hostAgentProto.GetHostResponse> {
    return this.#call("GetHost", {}, hostAgentProto.GetHostResponseSchema);
  }

  async listSandboxes(): Promise<hostAgentProto.Sandbox[]> {
    return (await this.#call("ListSandboxes", {}, hostAgentProto.ListSandboxesResponseSchema)).sandboxes;
  }

  async destroySandbox(sandboxId: string): Promise<void> {
    await this.#call(
      "DestroySandbox",
      { sandboxId },
      hostAgentProto.DestroySandboxResponseSchema,
      deadlines.destroySandbox,
    );
  }

  /** A unary Connect call in JSON is one POST: no client library is loaded for it. */
  async #call<Answer extends DescMessage>(
    method: string,
    message: JsonValue,
    answer: Answer,
    timeoutMs: number = deadlines.hostAgentCall,
  ): Promise<MessageShape<Answer>> {
    const { status, body } = await this.#post(`/wrenn.host.v1.HostAgent/${method}`, JSON.stringify(message), timeoutMs);
    if (status !== 200) {
      throw new WrennError("host_unavailable", {
        message: `The host agent answered ${method} with ${status}: ${body.slice(0, 500)}`,
      });
    }
    return fromJson(answer, JSON.parse(body) as JsonValue, { ignoreUnknownFields: true });
  }

  async #post(path: string, body: string, timeoutMs: number): Promise<{ status: number; body: string }> {
    return new Promise((resolve, reject) => {
      const failed = (cause: Error): void => {
        reject(new WrennError("host_unavailable", { cause }));
      };
      const sent = request(
        {
          socketPath: this.#socketPath,
          path,
          method: "POST",
          headers: { "content-type": "application/json", "connect-protocol-version": "1" },
          signal: AbortSignal.timeout(timeoutMs),
        },
        (response) => {
          const chunks: Buffer[] = [];
          response.on("data", (chunk: Buffer) => chunks.push(chunk));
          response.on("end", () => {
            resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString("utf8") });
          });
          response.on("error", failed);
        },
      );
      sent.on("error", failed);
      sent.end(body);
    });
  }
}
