/** `true` by `POST …/exec`, against starting the same process straight at the guest agent and waiting for its end. */
import { execResultSchema } from "@wrenn/contract";
import { processesOf } from "../guest-client.ts";
import { type Measurement, progressLine } from "../report.ts";
import type { RunningServer } from "../server.ts";

/** Until compilers on this side and translation on the guest's have settled. */
const warmUps = 30;

export async function measureRestExec(server: RunningServer, runs: number): Promise<Measurement[]> {
  const { id, direct } = await server.createSandbox();
  const processes = processesOf(direct);
  const byRest = async (): Promise<void> => {
    const response = await server.request("POST", `/v1/sandboxes/${id}/exec`, { cmd: "true" });
    const { exit_code: exitCode } = execResultSchema.parse(await response.json());
    if (exitCode !== 0) throw new Error(`true exited with ${exitCode}`);
  };
  const straight = async (): Promise<void> => {
    let ended = false;
    for await (const { event } of processes.start({ process: { cmd: "true" }, stdin: false })) {
      if (event?.event.case === "end") ended = event.event.value.exitCode === 0;
    }
    if (!ended) throw new Error("true did not exit with 0");
  };
  const ours: number[] = [];
  const bare: number[] = [];
  try {
    for (let round = -warmUps; round < runs; round += 1) {
      const samples = { bare: await timed(straight), ours: await timed(byRest) };
      if (round < 0) continue;
      bare.push(samples.bare);
      ours.push(samples.ours);
    }
    console.error(progressLine("exec by REST", runs, runs, ours));
  } finally {
    await server.destroySandbox(id);
  }
  return [{ name: "exec true by REST, median", unit: "ms", ours, bare, target: 1.5, failures: 0 }];
}

async function timed(work: () => Promise<void>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}
