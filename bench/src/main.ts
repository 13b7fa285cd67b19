/** `npm run bench [-- name… [--runs N]]`: measures, prints a table, keeps the raw samples in bench/results. */
import { parseArgs } from "node:util";
import { layoutFromEnvironment } from "@wrenn/system";
import { measureApiThroughput } from "./benchmarks/api-throughput.ts";
import { measureFork } from "./benchmarks/fork.ts";
import { measureGuestAgent } from "./benchmarks/guest-agent.ts";
import { measureGuestCall } from "./benchmarks/guest-call.ts";
import { measureGuestCommand } from "./benchmarks/guest-command.ts";
import { measureDensity } from "./benchmarks/density.ts";
import { measureDiskAttach } from "./benchmarks/disk-attach.ts";
import { measureExecStreams } from "./benchmarks/exec-streams.ts";
import { measureFileTransfer } from "./benchmarks/file-transfer.ts";
import { measureLauncher } from "./benchmarks/launcher.ts";
import { measurePager } from "./benchmarks/pager.ts";
import { measurePause } from "./benchmarks/pause.ts";
import { measureResidentMemory } from "./benchmarks/resident-memory.ts";
import { measureRestoreCreate } from "./benchmarks/restore-create.ts";
import { measureResume } from "./benchmarks/resume.ts";
import { describeCircumstances } from "./circumstances.ts";
import { measureRestExec } from "./benchmarks/rest-exec.ts";
import { measureSoak } from "./benchmarks/soak.ts";
import { measureSteps } from "./benchmarks/steps.ts";
import { measureTerminalEcho } from "./benchmarks/terminal-echo.ts";
import { type Measurement, renderTable, writeResults } from "./report.ts";
import { RunningServer } from "./server.ts";

interface Benchmark {
  /** Enough for a median: 40, and 100 for what takes less than 20 ms. */
  readonly runs: number;
  measure(server: RunningServer, runs: number): Promise<Measurement[]>;
}

const benchmarks: Record<string, Benchmark> = {
  launcher: { runs: 40, measure: (_server, runs) => measureLauncher(runs) },
  "guest-agent": { runs: 100, measure: (server, runs) => measureGuestAgent(server.layout.guestAgent, runs) },
  "guest-call": { runs: 15, measure: measureGuestCall },
  "guest-command": { runs: 40, measure: measureGuestCommand },
  "rest-exec": { runs: 100, measure: measureRestExec },
  "terminal-echo": { runs: 400, measure: measureTerminalEcho },
  "exec-streams": { runs: 5, measure: measureExecStreams },
  "file-transfer": { runs: 3, measure: measureFileTransfer },
  "api-throughput": { runs: 40, measure: (_server, runs) => measureApiThroughput(runs) },
  "restore-create": { runs: 40, measure: measureRestoreCreate },
  pause: { runs: 15, measure: (_server, runs) => measurePause(runs) },
  resume: { runs: 20, measure: (_server, runs) => measureResume(runs) },
  fork: { runs: 8, measure: (_server, runs) => measureFork(runs) },
  steps: { runs: 10, measure: (_server, runs) => measureSteps(runs) },
  "disk-attach": { runs: 10, measure: (_server, runs) => measureDiskAttach(runs) },
  density: { runs: 1, measure: () => measureDensity() },
  pager: { runs: 10, measure: (_server, runs) => measurePager(runs) },
  /** Its runs are minutes. */
  soak: { runs: 5, measure: measureSoak },
  "resident-memory": { runs: 1, measure: (server) => measureResidentMemory(server) },
};

const { values, positionals } = parseArgs({ allowPositionals: true, options: { runs: { type: "string" } } });
const chosen = positionals.length === 0 ? Object.keys(benchmarks) : positionals;
const unknown = chosen.filter((name) => !Object.hasOwn(benchmarks, name));
if (unknown.length > 0) {
  console.error(`There is no benchmark ${unknown.join(", ")}. There are: ${Object.keys(benchmarks).join(", ")}.`);
  process.exit(2);
}

const circumstances = await describeCircumstances(layoutFromEnvironment().root);
const measurements: Measurement[] = [];
const server = await RunningServer.start();
try {
  for (const [name, benchmark] of Object.entries(benchmarks)) {
    if (!chosen.includes(name)) continue;
    measurements.push(
      ...(await benchmark.measure(server, values.runs === undefined ? benchmark.runs : Number(values.runs))),
    );
  }
} finally {
  await server.stop();
}
console.log(renderTable(measurements));
console.error(`Raw samples: ${await writeResults(circumstances, measurements)}`);
