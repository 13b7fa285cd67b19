/** HTTP connections into sandboxes: one pool per sandbox and port, each connection a tunnel through the host agent. */
import type { Socket } from "node:net";
import { deadlines, guestAgentPort, httpLimits, intervals } from "@wrenn/contract";
import type { SandboxId } from "@wrenn/contract";
import { Pool } from "undici";
import { TunnelAhead } from "./tunnel-ahead.ts";
import { openTunnel } from "./tunnel.ts";
import type { OnTunnel, TunnelTarget } from "./tunnel.ts";

export interface PooledTunnels {
  readonly pool: Pool;
  /** For its next connection. */
  ahead: TunnelAhead | null;
  /** Requests that use it now, upgraded ones excepted: those have taken their connection out of the pool. */
  inFlight: number;
  lastUsed: number;
}

/**
 * How long an idle connection is kept. The guest agent keeps its side open for longer than this; of users' servers one
 * must expect that they close idle connections after 5 s, as Node's do.
 */
const idleConnectionMs = { guestAgent: intervals.tunnelIdle, user: 4_000 };

export class TunnelPools {
  readonly #pools = new Map<SandboxId, Map<string, PooledTunnels>>();
  readonly #sweeper: NodeJS.Timeout;
  #open = 0;

  constructor() {
    this.#sweeper = setInterval(() => {
      this.#closeIdle();
    }, intervals.tunnelIdle / 4);
    this.#sweeper.unref();
  }

  /** How many tunnels are open, those included that requests have taken out of their pools. */
  get open(): number {
    return this.#open;
  }

  /**
   * Opens a connection to the guest agent before it is asked for: who starts a sandbox uses it next, and reaching a guest that has just
   * been started takes a while.
   */
  openAhead(sandboxId: SandboxId, hostAddress: string): void {
    const target = { sandboxId, port: guestAgentPort, hostAddress };
    const pooled = this.get(target);
    pooled.ahead?.drop();
    pooled.ahead = new TunnelAhead((onTunnel) => {
      this.#openTunnel(target, onTunnel);
    });
  }

  get(target: TunnelTarget): PooledTunnels {
    const { sandboxId, port, hostAddress } = target;
    const ofSandbox = this.#pools.get(sandboxId) ?? new Map<string, PooledTunnels>();
    this.#pools.set(sandboxId, ofSandbox);
    const key = `${port} ${hostAddress}`;
    const known = ofSandbox.get(key);
    if (known !== undefined) return known;
    const keepAliveTimeout = port === guestAgentPort ? idleConnectionMs.guestAgent : idleConnectionMs.user;
    const pool = new Pool("http://sandbox", {
      connect: (_options, callback) => {
        const open = (): void => {
          this.#openTunnel(target, callback);
        };
        const { ahead } = made;
        made.ahead = null;
        if (ahead === null) open();
        else ahead.take(callback, open);
      },
      pipelining: 1,
      keepAliveTimeout,
      keepAliveMaxTimeout: keepAliveTimeout,
      headersTimeout: deadlines.dataPlaneIdle,
      bodyTimeout: deadlines.dataPlaneIdle,
      maxHeaderSize: httpLimits.headerBytes,
    });
    const made: PooledTunnels = { pool, ahead: null, inFlight: 0, lastUsed: performance.now() };
    ofSandbox.set(key, made);
    return made;
  }

  /** Ends the idle connections of a sandbox that is no longer what it was; requests under way end with their tunnels. */
  release(sandboxId: SandboxId): void {
    const ofSandbox = this.#pools.get(sandboxId);
    this.#pools.delete(sandboxId);
    for (const pooled of ofSandbox?.values() ?? []) void closeIdle(pooled);
  }

  /** Ends all connections of a sandbox that answers no more, with the requests on them. */
  sever(sandboxId: SandboxId): void {
    const ofSandbox = this.#pools.get(sandboxId);
    this.#pools.delete(sandboxId);
    for (const pooled of ofSandbox?.values() ?? []) void destroy(pooled);
  }

  /** Ends everything at once. */
  async close(): Promise<void> {
    clearInterval(this.#sweeper);
    const pools = [...this.#pools.values()].flatMap((ofSandbox) => [...ofSandbox.values()]);
    this.#pools.clear();
    await Promise.all(pools.map(destroy));
  }

  #openTunnel(target: TunnelTarget, onTunnel: OnTunnel): void {
    openTunnel(target, (...answer) => {
      this.#count(answer[1]);
      onTunnel(...answer);
    });
  }

  #count(tunnel: Socket | null): void {
    if (tunnel === null) return;
    this.#open += 1;
    tunnel.once("close", () => {
      this.#open -= 1;
    });
  }

  #closeIdle(): void {
    const oldest = performance.now() - intervals.tunnelIdle;
    for (const [sandboxId, ofSandbox] of this.#pools) {
      for (const [key, pooled] of ofSandbox) {
        if (pooled.inFlight > 0 || pooled.lastUsed > oldest) continue;
        ofSandbox.delete(key);
        void closeIdle(pooled);
      }
      if (ofSandbox.size === 0) this.#pools.delete(sandboxId);
    }
  }
}

/** Requests that are under way go on to their ends. */
async function closeIdle({ pool, ahead }: PooledTunnels): Promise<void> {
  ahead?.drop();
  await pool.close();
}

async function destroy({ pool, ahead }: PooledTunnels): Promise<void> {
  ahead?.drop();
  await pool.destroy();
}
