/** Whether this server can do its work: the database answers, and some host agent does. */
import { readFileSync } from "node:fs";
import { deadlines } from "@wrenn/contract";
import type { Health } from "@wrenn/contract";
import { z } from "zod";
import type { HostClients } from "../hosts/host-client.ts";
import type { Store } from "../store/database.ts";
import { listHosts } from "../store/hosts.ts";
import type { HeldBack } from "./held-back.ts";

const manifest = new URL("../../package.json", import.meta.url);
export const { version } = z.object({ version: z.string() }).parse(JSON.parse(readFileSync(manifest, "utf8")));

/** What the server itself is doing, whatever the parts that it needs do. */
export type ServerPhase = "starting" | "serving" | "stopping";

/** Anyone may ask, so asking often must cost nothing. */
const rememberedMs = 500;

export class HealthCheck {
  phase: ServerPhase = "starting";
  readonly #store: Store;
  readonly #clients: HostClients;
  readonly #heldBack: HeldBack;
  #addresses: string[] = [];
  #latest: { readonly answer: Promise<Health>; until: number } | undefined;

  constructor(store: Store, clients: HostClients, heldBack: HeldBack) {
    this.#store = store;
    this.#clients = clients;
    this.#heldBack = heldBack;
  }

  async check(): Promise<Health> {
    if (this.#latest !== undefined && performance.now() < this.#latest.until) return this.#latest.answer;
    const latest = { answer: this.#look(), until: Infinity };
    this.#latest = latest;
    const health = await latest.answer;
    latest.until = performance.now() + rememberedMs;
    return health;
  }

  async #look(): Promise<Health> {
    const database = await succeeds(this.#readAddresses());
    const hosts = await succeeds(Promise.any(this.#addresses.map(async (address) => this.#probe(address))));
    return {
      status: database && hosts ? "ok" : "degraded",
      version,
      checks: {
        database: database ? "ok" : "failed",
        hosts: hosts ? "ok" : "failed",
        // The server works all the same, and would work no better if it were taken out of service.
        reconciliation: this.#heldBack.isAny ? "held_back" : "ok",
      },
    };
  }

  /** Remembered, so that hosts can be asked while the database is away. */
  async #readAddresses(): Promise<void> {
    this.#addresses = (await listHosts(this.#store)).map((host) => host.address);
  }

  async #probe(address: string): Promise<void> {
    await this.#clients.get(address).getHost(deadlines.hostProbe);
  }
}

async function succeeds(work: Promise<unknown>): Promise<boolean> {
  try {
    await work;
    return true;
  } catch {
    return false;
  }
}
