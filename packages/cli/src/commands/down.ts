/** `wrenn down`: stops the server, and does not forget the sandboxes that there are. */
import { formatId, hostAgentProto, parseUuid, WrennError } from "@wrenn/contract";
import { Sandbox } from "@wrenn/sdk";
import { isAlive, type Layout, layoutFromEnvironment, signalProcess, waitForExit } from "@wrenn/system";
import { HostAgentClient } from "../server/host-agent-client.ts";
import { endPart, type PartName, readPartRecord } from "../server/part.ts";
import { countSandboxes } from "../server/sandboxes-on-disk.ts";
import { readLiveServer } from "../server/server-record.ts";
import { connectToServer } from "../local-server.ts";
import { printJson, say } from "../terminal/messages.ts";
import { Progress } from "../terminal/progress.ts";

export interface DownOptions {
  destroy: boolean;
  leaveRunning: boolean;
  json: boolean;
}

/** In the order in which they are stopped, each with the signal by which it ends in order. */
const parts: readonly [PartName, NodeJS.Signals][] = [
  ["control-plane", "SIGTERM"],
  ["host-agent", "SIGTERM"],
  ["postgres", "SIGINT"],
];

/** Stopping includes waiting for each part in turn, by force in the end. */
const stopTimeoutMs = 120_000;

export async function down(options: DownOptions): Promise<number> {
  const layout = layoutFromEnvironment();
  const { running, paused, dead, areNamed } = await sandboxesHere(layout);
  const all = [...running, ...paused, ...dead];
  if (running.length > 0 && !options.destroy && !options.leaveRunning) {
    throw new WrennError("sandboxes_running", {
      message: `Sandboxes are running on this machine:\n${running.map((id) => `  ${id}`).join("\n")}`,
      details: { sandboxes: running },
    });
  }
  if (options.destroy && all.length > 0 && !areNamed) {
    throw new WrennError("host_unavailable", {
      message: `The host agent does not answer, and without it ${countOf(all)} cannot be destroyed.`,
      suggestion:
        "Wait until `wrenn status` shows it, or start the server with `wrenn up -d`, and try again; " +
        "or stop the rest with --leave-running.",
    });
  }
  const progress = new Progress({ quiet: options.json });
  if (options.destroy && all.length > 0) {
    await progress.milestone(`destroying ${countOf(all)}`, () => destroyAll(layout, all));
  }
  const stopped = await progress.during("stopping Wrenn", () => stopServer(layout));
  const left = options.destroy ? { running: [], paused: [] } : { running, paused };
  if (options.json) {
    printJson({
      stopped,
      destroyed: options.destroy ? all : [],
      left_running: left.running,
      left_paused: left.paused,
    });
  } else if (!stopped) say("no Wrenn server is running");
  else {
    const kept = Object.entries(left).flatMap(([how, ids]) =>
      ids.length === 0 ? [] : [`; left ${how}: ${countOf(ids)}`],
    );
    process.stdout.write(`Wrenn is stopped${kept.join("")}\n`);
  }
  return 0;
}

interface SandboxesHere {
  /** Those with a virtual machine, or on their way to or from one. */
  running: string[];
  /** On disk alone: nothing of them ends with the server. */
  paused: string[];
  /** What is kept of them is for their owners to recover. */
  dead: string[];
  /** Whether these are public ids. */
  areNamed: boolean;
}

/** What the host agent holds; when it cannot be asked, what lies on disk decides, without ids. */
async function sandboxesHere(layout: Layout): Promise<SandboxesHere> {
  const { DEAD, PAUSED } = hostAgentProto.SandboxState;
  try {
    const sandboxes = await new HostAgentClient(layout).listSandboxes();
    const idsOf = (wanted: (state: hostAgentProto.SandboxState) => boolean): string[] =>
      sandboxes
        .filter(({ state }) => wanted(state))
        .map(({ sandboxId }) => formatId("sandbox", parseUuid("sandbox", sandboxId)));
    return {
      running: idsOf((state) => state !== DEAD && state !== PAUSED),
      paused: idsOf((state) => state === PAUSED),
      dead: idsOf((state) => state === DEAD),
      areNamed: true,
    };
  } catch (error) {
    if (!(error instanceof WrennError) || error.code !== "host_unavailable") throw error;
    const count = await countSandboxes(layout);
    const running = Array.from(
      { length: count },
      (_, index) => `(sandbox ${index + 1}: the host agent does not run to name it)`,
    );
    return { running, paused: [], dead: [], areNamed: false };
  }
}

/** Through the API, so that the records agree; what no team of ours owns there, at the host agent. */
async function destroyAll(layout: Layout, ids: readonly string[]): Promise<void> {
  const { api } = await connectToServer(layout);
  const agent = new HostAgentClient(layout);
  for (const id of ids) {
    try {
      await Sandbox.destroy(id, api);
    } catch (error) {
      if (!(error instanceof WrennError) || error.code !== "sandbox_not_found") throw error;
      await agent.destroySandbox(id.replace(/^sb-/, ""));
    }
  }
}

/** Also ends parts whose supervisor was killed. False when nothing was running. */
async function stopServer(layout: Layout): Promise<boolean> {
  let stopped = false;
  const server = await readLiveServer(layout);
  if (server !== null) {
    await signalProcess(server.identity, "SIGTERM");
    stopped = true;
    if (!(await waitForExit(server.identity, stopTimeoutMs))) {
      throw new WrennError("subprocess_failed", {
        message: `The server (pid ${server.identity.pid}) did not stop within ${stopTimeoutMs / 1_000} s.`,
        suggestion: `Look at its log, ${layout.log("server")}.`,
      });
    }
  }
  for (const [name, stopSignal] of parts) {
    const record = await readPartRecord(layout, name);
    if (record === null || !(await isAlive(record.identity))) continue;
    await endPart(layout, name, record.identity, stopSignal);
    stopped = true;
  }
  return stopped;
}

function countOf(ids: readonly string[]): string {
  return ids.length === 1 ? "1 sandbox" : `${ids.length} sandboxes`;
}
