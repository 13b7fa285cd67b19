/** A machine on the Internet, as far as sandboxes can tell: a namespace with a public address and a web server. */
import { type ChildProcess, spawn } from "node:child_process";
import { pollUntil, run, runUnchecked } from "@wrenn/system";

/** Of a range set aside for documentation (RFC 5737), so that it stands in nobody's way. */
export const outsideAddress = "203.0.113.10";
const hostAddress = "203.0.113.1";
const namespace = "wrenn-e2e-outside";
const link = "wrenn-e2e-out";

export class OutsideNetwork {
  readonly port = 8_080;
  readonly #server: ChildProcess;

  private constructor(server: ChildProcess) {
    this.#server = server;
  }

  static async start(): Promise<OutsideNetwork> {
    await removeNamespace();
    await run("ip", ["netns", "add", namespace]);
    await run("ip", ["link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace]);
    await run("ip", ["addr", "add", `${hostAddress}/24`, "dev", link]);
    await run("ip", ["link", "set", link, "up"]);
    await run("ip", ["-n", namespace, "addr", "add", `${outsideAddress}/24`, "dev", "eth0"]);
    await run("ip", ["-n", namespace, "link", "set", "eth0", "up"]);
    // No route back: only what is translated to the host's address can be answered, as on the Internet.
    const outside = new OutsideNetwork(
      spawn("ip", ["netns", "exec", namespace, "python3", "-m", "http.server", "8080", "--directory", "/proc/sys"], {
        stdio: "ignore",
      }),
    );
    const up = await pollUntil(() => outside.#answers(), { timeoutMs: 10_000, intervalMs: 100 });
    if (up === null) throw new Error("the server outside does not answer");
    return outside;
  }

  async stop(): Promise<void> {
    this.#server.kill("SIGKILL");
    await removeNamespace();
  }

  async #answers(): Promise<true | null> {
    try {
      await fetch(`http://${outsideAddress}:${this.port}/`, { signal: AbortSignal.timeout(1_000) });
      return true;
    } catch {
      return null;
    }
  }
}

async function removeNamespace(): Promise<void> {
  await runUnchecked("ip", ["link", "delete", link]);
  await runUnchecked("ip", ["netns", "delete", namespace]);
}
