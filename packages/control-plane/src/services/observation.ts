/** What can be seen of a sandbox from outside it: its console, which its host keeps, and what it uses, which its guest measures. */
import { deadlines, errorFromGuest, WrennError } from "@wrenn/contract";
import type { Console, Metrics, SandboxId, SandboxStatus, TeamId } from "@wrenn/contract";
import { withTimeLimit } from "@wrenn/system";
import type { Response } from "undici";
import { z } from "zod";
import type { HostClients } from "../hosts/host-client.ts";
import type { Guests } from "./guests.ts";
import type { SandboxTargets } from "./sandbox-targets.ts";

/** As the guest agent answers `GET /metrics`, without what is said twice. */
const guestMetricsSchema = z.object({
  ts: z.number().int().min(0).max(8.64e12),
  cpu_count: z.number().int(),
  cpu_used_pct: z.number(),
  mem_total: z.number().int(),
  mem_used: z.number().int(),
  mem_cache: z.number().int(),
  disk_used: z.number().int(),
  disk_total: z.number().int(),
});

/** Far above any guest agent's answer: whoever is root in a guest may have put something else in its place. */
const maxMetricsBytes = 16_384;

export class Observation {
  readonly #with: { readonly targets: SandboxTargets; readonly clients: HostClients; readonly guests: Guests };

  constructor(services: { targets: SandboxTargets; clients: HostClients; guests: Guests }) {
    this.#with = services;
  }

  /**
   * What the guest has printed from an offset on, as much as one answer holds. Works whatever the sandbox's status, for as long as
   * its host has it.
   * @throws WrennError `sandbox_not_found`, also for another team's; `host_unavailable`; `console_gone` when the host has it no more.
   */
  async readConsole(teamId: TeamId, id: SandboxId, offset: number): Promise<Console> {
    const target = await this.#with.targets.find(id);
    if (target === null || target.teamId !== teamId) throw new WrennError("sandbox_not_found");
    const { status, hostAddress } = target;
    if (status === "stopped" || hostAddress === null) throw consoleGone(status);
    try {
      const part = await this.#with.clients.get(hostAddress).readConsole(id, offset);
      return { text: part.text, offset: Number(part.offset), next_offset: Number(part.nextOffset) };
    } catch (error) {
      if (!(error instanceof WrennError && error.code === "sandbox_not_found")) throw error;
      // Its host has not been asked for it yet.
      if (status === "pending" || status === "starting") return { text: "", offset: 0, next_offset: 0 };
      throw consoleGone(status);
    }
  }

  /** @throws WrennError `sandbox_not_found`, `sandbox_state_conflict`, `host_unavailable`, `connection_lost` */
  async measure(teamId: TeamId, id: SandboxId): Promise<Metrics> {
    const guest = await this.#with.guests.reach(teamId, id, { countsAsUse: false });
    const late = (): WrennError => new WrennError("connection_lost", { message: "The guest did not answer in time." });
    const read = async (signal: AbortSignal): Promise<string> =>
      readBounded(await guest.fetch("/metrics", { signal }), maxMetricsBytes);
    try {
      const answer = await withTimeLimit(deadlines.guestMetrics, late, [], read);
      const measured = guestMetricsSchema.parse(JSON.parse(answer));
      return {
        measured_at: new Date(measured.ts * 1_000).toISOString(),
        cpu_count: measured.cpu_count,
        cpu_used_percent: measured.cpu_used_pct,
        memory_total_bytes: measured.mem_total,
        memory_used_bytes: measured.mem_used,
        memory_cache_bytes: measured.mem_cache,
        disk_total_bytes: measured.disk_total,
        disk_used_bytes: measured.disk_used,
      };
    } catch (error) {
      throw errorFromGuest(error);
    }
  }
}

function consoleGone(status: SandboxStatus): WrennError {
  return new WrennError("console_gone", {
    message: `The sandbox is ${status}, and its host no longer keeps its console.`,
    details: { status },
  });
}

async function readBounded(response: Response, maxBytes: number): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes > maxBytes) throw new Error(`the guest agent answers with more than ${maxBytes} bytes`);
  }
  return Buffer.concat(chunks).toString("utf8");
}
