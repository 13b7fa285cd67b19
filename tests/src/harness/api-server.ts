/**
 * The public API over a real database and a real guest agent, which runs on this machine instead of in a VM: for tests of what
 * the server and the agent do together, many of them in a second.
 */
import { TestDatabase, TestServer } from "@wrenn/control-plane/testing";
import { afterAll, beforeAll } from "vitest";
import { type GuestAgent, startGuestAgent } from "../guest-agent/harness.ts";

export interface ApiServer {
  readonly server: TestServer;
  readonly guest: GuestAgent;
  /** A sandbox that runs: every sandbox of this server has the same guest. */
  readonly sandbox: { readonly id: string; readonly uuid: string; readonly token: string };
}

export function useApiServer(): () => ApiServer {
  let api: ApiServer | undefined;
  let database: TestDatabase | undefined;
  beforeAll(async () => {
    database = await TestDatabase.start();
    const server = await TestServer.start(database);
    const guest = await startGuestAgent();
    server.agent.realGuestAgentPort = guest.port;
    api = { server, guest, sandbox: await server.create() };
  });
  afterAll(async () => {
    await api?.server.stop();
    await api?.guest.stop();
    await database?.stop();
  });
  return () => {
    if (api === undefined) throw new Error("the server has not been started");
    return api;
  };
}
