/** `wrenn up`: the server, in the foreground with its logs, or in the background. */
import { layoutFromEnvironment, type Layout } from "@wrenn/system";
import { setUpMachine } from "../ensure-server.ts";
import { findReadyServer, startServer } from "../local-server.ts";
import { HostAgentClient } from "../server/host-agent-client.ts";
import { followLog } from "../server/log-files.ts";
import type { PartName } from "../server/part.ts";
import { runServer, type RunningServer } from "../server/supervisor.ts";
import { formatLogLine } from "../terminal/log-line.ts";
import { printJson, say } from "../terminal/messages.ts";
import { Progress } from "../terminal/progress.ts";
import { formatSeconds } from "../units.ts";

export interface UpOptions {
  detach: boolean;
  logs: boolean;
  json: boolean;
}

export async function up(options: UpOptions): Promise<number> {
  const layout = layoutFromEnvironment();
  if (options.detach) return upDetached(layout, options);
  await setUpMachine(layout);
  await upInForeground(layout, options);
  return 0;
}

async function upDetached(layout: Layout, options: UpOptions): Promise<number> {
  const running = await findReadyServer(layout);
  let server = running;
  if (server === null) {
    await setUpMachine(layout);
    server = await new Progress({ quiet: options.json }).milestone("starting Wrenn", () => startServer(layout));
  }
  const host = await new HostAgentClient(layout).getHost();
  if (options.json) {
    printJson({ url: server.url, pid: server.identity.pid, engine: host.engine, started: running === null });
  } else {
    const verb = running === null ? "runs" : "already runs";
    process.stdout.write(`Wrenn ${verb} at ${server.url} (pid ${server.identity.pid})\n`);
    process.stdout.write(`engine ${host.engine}: ${host.engineReason}\n`);
  }
  return 0;
}

async function upInForeground(layout: Layout, options: UpOptions): Promise<void> {
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => {
      if (!stop.signal.aborted) say("stopping");
      stop.abort();
    });
  }
  const logs: Promise<void>[] = [];
  if (options.logs) {
    for (const name of ["postgres", "host-agent", "control-plane"] satisfies PartName[]) {
      const show = (line: string): void => {
        process.stdout.write(`${formatLogLine(name, line)}\n`);
      };
      logs.push(followLog(layout.log(name), show, stop.signal));
    }
  }
  try {
    await runServer({
      layout,
      report: say,
      onReady: (server) => {
        announce(server, options);
      },
      signal: stop.signal,
    });
    await sayWhatStays(layout);
  } finally {
    stop.abort();
    await Promise.all(logs);
  }
}

function announce(server: RunningServer, options: UpOptions): void {
  if (options.json) {
    printJson({ url: server.url, pid: process.pid, engine: server.host.engine, started: true });
    return;
  }
  const adopted = server.adopted.length === 0 ? "" : ` · already running: ${server.adopted.join(", ")}`;
  say(`Wrenn is up at ${server.url} · ${formatSeconds(server.startMs)}${adopted}`);
  say(`engine ${server.host.engine}: ${server.host.engineReason}`);
}

/** Sandboxes outlive the server; whoever stops it in a terminal should know. */
async function sayWhatStays(layout: Layout): Promise<void> {
  const { countSandboxes } = await import("../server/sandboxes-on-disk.ts");
  const count = await countSandboxes(layout);
  if (count === 0) return;
  const what = count === 1 ? "1 sandbox stays" : `${count} sandboxes stay`;
  say(
    `${what}, running or paused as it is; the next \`wrenn up\` takes over, \`wrenn up -d && wrenn down --destroy\` destroys all`,
  );
}
