/**
 * The public API over a real database and a real guest agent, which runs on this machine instead of in a VM: for tests of what
 * the server and the agent do together, many of them in a second.
 */
import { processProto } from "@wrenn/contract";
import { eventually, TestServer } from "@wrenn/control-plane/testing";
import { afterAll, beforeAll } from "vitest";
import { type GuestAgent, type GuestAgentOptions, startGuestAgent } from "../guest-agent/harness.ts";
import { byPid } from "../guest-agent/process-events.ts";

export interface ApiServer {
  readonly server: TestServer;
  readonly guest: GuestAgent;
  /** A sandbox that runs: every sandbox of this server has the same guest. */
  readonly sandbox: { readonly id: string; readonly uuid: string; readonly token: string };
}

/** Kills whatever a test has left running in the guest, with all that it started. */
export async function endProcesses(guest: GuestAgent): Promise<void> {
  const client = guest.process();
  await eventually(async () => {
    const { processes } = await client.list({});
    if (processes.length === 0) return;
    const signal = processProto.Signal.SIGKILL;
    // Some end by themselves meanwhile.
    await Promise.allSettled(processes.map(async ({ pid }) => client.sendSignal({ process: byPid(pid), signal })));
    throw new Error(`still running: ${processes.map(({ config }) => config?.cmd).join(", ")}`);
  });
}

export function useApiServer(options: GuestAgentOptions = {}): () => ApiServer {
  let api: ApiServer | undefined;
  beforeAll(async () => {
    const server = await TestServer.start();
    const guest = await startGuestAgent(options);
    server.agent.realGuestAgentPort = guest.port;
    api = { server, guest, sandbox: await server.create() };
  });
  afterAll(async () => {
    try {
      await api?.server.stop();
    } finally {
      await api?.guest.stop();
    }
  });
  return () => {
    if (api === undefined) throw new Error("the server has not been started");
    return api;
  };
}
