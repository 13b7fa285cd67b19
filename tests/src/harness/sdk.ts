/** The SDK as its users have it, in front of a whole API and a real guest agent on this machine. */
import { readdir, readFile } from "node:fs/promises";
import { Sandbox, type ConnectionOptions } from "@wrenn/sdk";
import { eventually } from "@wrenn/control-plane/testing";
import { afterEach, beforeAll } from "vitest";
import { useApiServer, type ApiServer } from "./api-server.ts";

export interface SdkWorld extends ApiServer {
  /** What the SDK needs to know of the server. */
  readonly options: ConnectionOptions;
  readonly box: Sandbox;
}

/** Each test ends with no command left in the sandbox. */
export function useSdk(): () => SdkWorld {
  const api = useApiServer();
  let world: SdkWorld | undefined;
  beforeAll(async () => {
    const options = { apiUrl: api().server.url, apiKey: api().server.key };
    world = { ...api(), options, box: await Sandbox.connect(api().sandbox.id, options) };
  });
  afterEach(async () => {
    if (world === undefined) return;
    const { commands } = world.box;
    await eventually(async () => {
      const left = await commands.list();
      for (const { pid } of left) await commands.kill(pid);
      // One that was killed is still listed until it has been waited for.
      if (left.length > 0) throw new Error(`${left.length} commands are left`);
    });
  });
  return () => {
    if (world === undefined) throw new Error("the server has not been started");
    return world;
  };
}

/** How many processes of this machine have these words in their command line. */
export async function countProcesses(words: string): Promise<number> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const lines = await Promise.all(
    // One that has just ended has none.
    pids.map(async (pid) => readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")),
  );
  return lines.filter((line) => line.replaceAll("\0", " ").includes(words)).length;
}
