/** What sandboxes' networks are made of: taps, namespaces, rules and routing; and the server's own port. */
import { access, constants, readFile } from "node:fs/promises";
import { asWrennError } from "@wrenn/contract";
import { forwardingObstacle, instanceTag } from "@wrenn/host-agent";
import { type Layout, run, runUnchecked } from "@wrenn/system";
import { assertPortFree, isHealthy, listenAddress } from "../server/parts.ts";
import { readLiveServer } from "../server/server-record.ts";
import { type Examination, failed, ok, type Outcome, warning } from "./check.ts";

const needsRoot = warning("only root can see this", "Run the same command with sudo.");

export const networkExaminations: readonly Examination[] = [
  {
    name: "tun",
    look: async () =>
      access("/dev/net/tun", constants.R_OK).then(
        () => judgeTun(true),
        () => judgeTun(false),
      ),
  },
  { name: "namespaces", look: asRoot(async () => judgeNamespaces(await tryNamespace())) },
  { name: "nftables", look: asRoot(async () => judgeNftables(await runUnchecked("nft", ["list", "tables"]))) },
  { name: "routing", look: async () => judgeRouting(await readFile("/proc/sys/net/ipv4/ip_forward", "utf8")) },
  {
    name: "firewall",
    look: asRoot(async (layout) => judgeFirewall(await forwardingObstacle(instanceTag(layout.root)))),
  },
  { name: "port", look: async (layout) => judgePort(await lookAtPort(layout)) },
];

function asRoot(look: (layout: Layout) => Promise<Outcome>): (layout: Layout) => Promise<Outcome> {
  return async (layout) => (process.geteuid?.() === 0 ? look(layout) : needsRoot);
}

export function judgeTun(opens: boolean): Outcome {
  if (opens) return ok("/dev/net/tun");
  const why = "Every sandbox is connected by a tap device.";
  return failed(
    "/dev/net/tun is missing or cannot be opened",
    "modprobe tun, or allow the device to this container",
    why,
  );
}

export interface Tried {
  readonly exitCode: number;
  readonly stderr: string;
}

/** Makes one and lets it go, for nothing else tells whether the kernel and the container allow it. */
async function tryNamespace(): Promise<Tried> {
  await run("ip", ["-Version"]);
  return runUnchecked("unshare", ["--net", "true"]);
}

export function judgeNamespaces({ exitCode, stderr }: Tried): Outcome {
  if (exitCode === 0) return ok("network namespaces can be made");
  return failed(
    `no network namespace can be made: ${stderr.trim()}`,
    "Give this container CAP_SYS_ADMIN, or run Wrenn on the host itself.",
    "Every sandbox has a network of its own.",
  );
}

export function judgeNftables({ exitCode, stdout, stderr }: Tried & { readonly stdout: string }): Outcome {
  const tables = stdout.split("\n").filter((line) => line !== "").length;
  if (exitCode === 0) return ok(`usable; ${tables} tables`);
  return failed(
    `nft does not work: ${stderr.trim()}`,
    "modprobe nf_tables, and give this container CAP_NET_ADMIN",
    "Rules keep sandboxes from each other, from this machine and from private networks.",
  );
}

/** @param setting the content of net.ipv4.ip_forward */
export function judgeRouting(setting: string): Outcome {
  if (setting.trim() !== "0") return ok("the kernel routes");
  return ok("off; the host agent turns it on at its start (sysctl -w net.ipv4.ip_forward=1)");
}

/** @param obstacle what another firewall on this machine drops of sandboxes' traffic, or null */
export function judgeFirewall(obstacle: string | null): Outcome {
  if (obstacle === null) return ok("nothing keeps sandboxes from the Internet");
  return warning(
    obstacle,
    "Let what the finding names through, or accept that sandboxes have no Internet.",
    "What another firewall drops, none of Wrenn's rules brings back.",
  );
}

/** The address that the server listens on, or would: by whom it is held. */
export interface PortFacts {
  readonly listen: string;
  readonly state: "ours" | "free" | "taken" | "not an address";
  /** Why it cannot be listened on. */
  readonly problem?: string;
}

async function lookAtPort(layout: Layout): Promise<PortFacts> {
  const listen = listenAddress();
  // A control plane that is a service of its own has no supervisor that would know of it.
  if ((await readLiveServer(layout)) !== null || (await isHealthy(`http://${listen}`)))
    return { listen, state: "ours" };
  try {
    await assertPortFree(listen);
    return { listen, state: "free" };
  } catch (error) {
    const { code, message } = asWrennError(error);
    return { listen, state: code === "port_taken" ? "taken" : "not an address", problem: message };
  }
}

export function judgePort({ listen, state, problem }: PortFacts): Outcome {
  switch (state) {
    case "ours":
      return ok(`${listen}, where the server listens`);
    case "free":
      return ok(`${listen} is free`);
    case "taken":
      return failed(
        `another program listens on ${listen}`,
        `ss -ltnp shows which; end it, or set WRENN_LISTEN=ADDRESS:PORT`,
        "The server listens there.",
      );
    case "not an address":
      return failed(problem ?? listen, "Set WRENN_LISTEN to an address of this machine, such as 127.0.0.1:7070.");
    default:
      return state satisfies never;
  }
}
