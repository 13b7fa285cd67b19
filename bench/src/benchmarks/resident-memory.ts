/** What host agent and control plane together keep resident while ten sandboxes run. */
import { Sandbox } from "@wrenn/sdk";
import { type Measurement, progressLine } from "../report.ts";
import type { RunningServer } from "../server.ts";
import { firstOutput } from "../guest-client.ts";
import { residentMemoryMib } from "./guest-agent.ts";

const sandboxCount = 10;

export async function measureResidentMemory(server: RunningServer): Promise<Measurement[]> {
  const sandboxes = [];
  try {
    for (let index = 0; index < sandboxCount; index += 1) {
      const sandbox = await Sandbox.create({ ...server.api, memoryMib: 256 });
      sandboxes.push(sandbox);
      await firstOutput(server.endpoint(sandbox.id));
      console.error(progressLine("resident memory: sandboxes created", index + 1, sandboxCount, []));
    }
    const { hostAgent, controlPlane } = await server.parts();
    const total = (await residentMemoryMib(hostAgent)) + (await residentMemoryMib(controlPlane));
    return [
      {
        name: "host agent and control plane: resident with 10 sandboxes",
        unit: "MiB",
        ours: [total],
        target: 250,
        failures: 0,
      },
    ];
  } finally {
    for (const sandbox of sandboxes) await sandbox.destroy();
  }
}
