/** What `./wrenn` costs when nothing is to be set up: the launcher's checks, Node, and the set-up's own. */
import path from "node:path";
import { repositoryRoot } from "@wrenn/cli";
import { run } from "@wrenn/system";
import type { Measurement } from "../report.ts";

export async function measureLauncher(runs: number): Promise<Measurement[]> {
  const program = path.join(repositoryRoot, "wrenn");
  const ours: number[] = [];
  for (let round = 0; round < runs; round += 1) {
    const start = performance.now();
    await run(program, ["setup"]);
    ours.push(performance.now() - start);
  }
  return [{ name: "./wrenn setup with nothing to do", unit: "ms", ours, target: 1_000, failures: 0 }];
}
