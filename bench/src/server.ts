/** The server under measurement: a whole one, in a WRENN_DIR of its own, started with the real command line. */
import { type CreateSandboxInput, parseId } from "@wrenn/contract";
import { type ConnectionOptions, Sandbox } from "@wrenn/sdk";
import { type Layout, processIdentitySchema, readJson, run } from "@wrenn/system";
import { TestServer } from "@wrenn/tests";
import { z } from "zod";
import type { GuestEndpoint } from "./guest-client.ts";

const journalSchema = z.object({ process: processIdentitySchema });
const addressesSchema = z.array(z.object({ addr_info: z.array(z.object({ local: z.string(), scope: z.string() })) }));
const createdSchema = z.object({ id: z.string(), access_token: z.string() });

export interface MeasuredSandbox {
  readonly id: string;
  /** Through control plane and host agent. */
  readonly proxied: GuestEndpoint;
  /** Straight to the guest agent, by the address of the sandbox's slot. */
  readonly direct: GuestEndpoint;
}

export class RunningServer {
  readonly layout: Layout;
  /** What the SDK needs to know of the server. */
  readonly api: ConnectionOptions;
  readonly #server: TestServer;
  readonly #apiKey: string;

  private constructor(server: TestServer, apiKey: string) {
    this.layout = server.layout;
    this.#server = server;
    this.api = { apiUrl: server.url, apiKey };
    this.#apiKey = apiKey;
  }

  static async start(): Promise<RunningServer> {
    const server = await TestServer.start();
    return new RunningServer(server, await server.apiKey());
  }

  get keyHeaders(): Readonly<Record<string, string>> {
    return { "x-api-key": this.#apiKey };
  }

  url(path: string): string {
    return `${this.#server.url}${path}`;
  }

  /** The same address for a WebSocket. */
  streamUrl(path: string): string {
    return this.url(path).replace(/^http/, "ws");
  }

  /** A JSON request of the public API. */
  async request(method: string, path: string, body?: unknown): Promise<Response> {
    const response = await fetch(this.url(path), {
      method,
      headers: { ...this.keyHeaders, ...(body === undefined ? {} : { "content-type": "application/json" }) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    if (!response.ok)
      throw new Error(`${method} ${path} was answered with ${response.status}: ${await response.text()}`);
    return response;
  }

  /** The data plane's address of a sandbox's guest agent. */
  endpoint(sandboxId: string): GuestEndpoint {
    return { url: this.#server.url, headers: { "wrenn-sandbox-id": sandboxId, ...this.keyHeaders } };
  }

  async createSandbox(ask: CreateSandboxInput = {}): Promise<MeasuredSandbox> {
    const response = await this.request("POST", "/v1/sandboxes", ask);
    const { id, access_token } = createdSchema.parse(await response.json());
    const url = `http://${await this.#slotAddress(id)}:49983`;
    return { id, proxied: this.endpoint(id), direct: { url, headers: { "x-access-token": access_token } } };
  }

  async destroySandbox(id: string): Promise<void> {
    await Sandbox.destroy(id, this.api);
  }

  async parts(): Promise<{ hostAgent: number; controlPlane: number }> {
    return {
      hostAgent: await this.#server.pidOf("host-agent"),
      controlPlane: await this.#server.pidOf("control-plane"),
    };
  }

  async stop(): Promise<void> {
    const left = await this.#server.stop();
    if (left.length > 0) console.error(`left behind: ${left.join(", ")}`);
  }

  /** The one address of the engine's network namespace that is not link-local. */
  async #slotAddress(sandboxId: string): Promise<string> {
    const { journal } = this.layout.sandbox(parseId("sandbox", sandboxId));
    const { process } = journalSchema.parse(await readJson(journal));
    const { stdout } = await run("nsenter", [`--net=/proc/${process.pid}/ns/net`, "ip", "-json", "-4", "address"]);
    const addresses = addressesSchema.parse(JSON.parse(stdout)).flatMap((link) => link.addr_info);
    const slot = addresses.find(({ local }) => !local.startsWith("169.254.") && !local.startsWith("127."));
    if (slot === undefined) throw new Error(`no address of ${sandboxId}'s slot in ${stdout}`);
    return slot.local;
  }
}
