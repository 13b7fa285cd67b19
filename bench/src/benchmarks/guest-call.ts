/** Calls of the guest agent through control plane and host agent, against the same straight to it: one at a time, and 20 in flight. */
import { Pool } from "undici";
import { type Measurement, progressLine } from "../report.ts";
import type { GuestEndpoint } from "../guest-client.ts";
import type { RunningServer } from "../server.ts";

/** Calls in one block; blocks of both sides alternate. Long enough for its first calls, which start all at once, not to count much. */
const blockCalls = 300;
/** Until compilers on this side and translation on the guest's have settled: what is asked is what a call costs, not the first. */
const warmUpBlocks = 5;
const inFlight = 20;

export async function measureGuestCall(server: RunningServer, runs: number): Promise<Measurement[]> {
  const { id, direct, proxied } = await server.createSandbox();
  const pools = {
    direct: new Pool(direct.url, { connections: inFlight }),
    proxied: new Pool(proxied.url, { connections: inFlight }),
  };
  try {
    const single = { ours: [] as number[], bare: [] as number[] };
    const burst = { ours: [] as number[], bare: [] as number[] };
    for (let round = 0; round < warmUpBlocks; round += 1) {
      await block(pools.direct, direct, inFlight);
      await block(pools.proxied, proxied, inFlight);
    }
    for (let round = 0; round < runs; round += 1) {
      single.bare.push(...(await block(pools.direct, direct, 1)));
      single.ours.push(...(await block(pools.proxied, proxied, 1)));
      burst.bare.push(...(await block(pools.direct, direct, inFlight)));
      burst.ours.push(...(await block(pools.proxied, proxied, inFlight)));
      console.error(progressLine("guest call", round + 1, runs, single.ours));
    }
    return [
      { name: "guest agent call, one at a time, median", unit: "ms", ...single, target: 1.5, failures: 0 },
      { name: "guest agent call, 20 in flight, median", unit: "ms", ...burst, target: 1.5, failures: 0 },
      { name: "guest agent call, 20 in flight, p99", unit: "ms", ...burst, percentile: 99, target: 1.5, failures: 0 },
    ];
  } finally {
    await Promise.all([pools.direct.close(), pools.proxied.close()]);
    await server.destroySandbox(id);
  }
}

/** Makes the block's calls with so many at once, and returns how long each took. */
async function block(pool: Pool, endpoint: GuestEndpoint, concurrency: number): Promise<number[]> {
  const samples: number[] = [];
  let left = blockCalls;
  const worker = async (): Promise<void> => {
    while (left > 0) {
      left -= 1;
      const start = performance.now();
      const { statusCode, body } = await pool.request({
        method: "POST",
        path: "/filesystem.Filesystem/Stat",
        headers: { "content-type": "application/json", ...endpoint.headers },
        body: '{"path":"/etc/hostname"}',
      });
      await body.text();
      if (statusCode !== 200) throw new Error(`the call answered ${statusCode}`);
      samples.push(performance.now() - start);
    }
  };
  await Promise.all(Array.from({ length: concurrency }, worker));
  return samples;
}
