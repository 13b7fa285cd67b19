/** A large file up and down by REST, against the same straight to the guest agent; and what the server's memory does meanwhile. */
import { Readable } from "node:stream";
import { setInterval } from "node:timers";
import { request } from "undici";
import { type Measurement, progressLine } from "../report.ts";
import type { RunningServer } from "../server.ts";
import { residentMemoryMib } from "./guest-agent.ts";

const mib = 1_048_576;
const fileMib = 1_024;
const path = "/var/tmp/large";
const sampleMs = 100;
/** 0.8 of the throughput is 1.25 of the time. */
const target = 1 / 0.8;

export async function measureFileTransfer(server: RunningServer, runs: number): Promise<Measurement[]> {
  const { id, direct } = await server.createSandbox();
  const rest = { url: server.url(`/v1/sandboxes/${id}/files?path=${path}`), headers: server.keyHeaders };
  const straight = { url: `${direct.url}/files?path=${path}`, headers: direct.headers };
  const times = {
    up: { ours: [] as number[], bare: [] as number[] },
    down: { ours: [] as number[], bare: [] as number[] },
  };
  const { hostAgent, controlPlane } = await server.parts();
  const memory = async (): Promise<number> =>
    (await residentMemoryMib(hostAgent)) + (await residentMemoryMib(controlPlane));
  try {
    // Both ways once, so that buffers and compilers have what they need before memory is looked at.
    await upload("PUT", rest);
    await download(rest);
    const before = await memory();
    let highest = before;
    const sampler = setInterval(() => {
      void memory().then((now) => (highest = Math.max(highest, now)));
    }, sampleMs);
    try {
      for (let round = 0; round < runs; round += 1) {
        times.up.bare.push(await upload("POST", straight));
        times.up.ours.push(await upload("PUT", rest));
        times.down.bare.push(await download(straight));
        times.down.ours.push(await download(rest));
        console.error(progressLine("file transfer", round + 1, runs, times.up.ours));
      }
    } finally {
      clearInterval(sampler);
    }
    const what = `file of ${fileMib} MiB`;
    return [
      { name: `${what} up by REST`, unit: "ms", ...times.up, target, failures: 0 },
      { name: `${what} down by REST`, unit: "ms", ...times.down, target, failures: 0 },
      {
        name: `${what}: memory that host agent and control plane grew by`,
        unit: "MiB",
        ours: [highest - before],
        target: 48,
        failures: 0,
      },
    ];
  } finally {
    await server.destroySandbox(id);
  }
}

interface Place {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
}

async function upload(method: "PUT" | "POST", { url, headers }: Place): Promise<number> {
  const start = performance.now();
  const { statusCode, body } = await request(url, {
    method,
    headers: { ...headers, "content-type": "application/octet-stream", "content-length": String(fileMib * mib) },
    body: Readable.from(chunks(), { objectMode: false }),
    headersTimeout: 0,
  });
  const answer = await body.text();
  if (statusCode >= 300) throw new Error(`the upload was answered with ${statusCode}: ${answer}`);
  return performance.now() - start;
}

async function download({ url, headers }: Place): Promise<number> {
  const start = performance.now();
  const { statusCode, body } = await request(url, { headers, bodyTimeout: 0 });
  if (statusCode !== 200) throw new Error(`the download was answered with ${statusCode}: ${await body.text()}`);
  let bytes = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) bytes += chunk.length;
  if (bytes !== fileMib * mib) throw new Error(`${bytes} bytes came`);
  return performance.now() - start;
}

function* chunks(): Generator<Buffer> {
  const chunk = Buffer.alloc(mib, "wrenn");
  for (let count = 0; count < fileMib; count += 1) yield chunk;
}
