/** Our own two programs as parts of the server. */
import { connect, createServer } from "node:net";
import { readdir, stat } from "node:fs/promises";
import path from "node:path";
import { errorRegistry, healthSchema, WrennError } from "@wrenn/contract";
import type { Layout } from "@wrenn/system";
import { distOf, readVersion } from "./installation.ts";
import type { PartDefinition } from "./part.ts";

export const defaultListen = "127.0.0.1:7070";

/** The exit code by which the control plane says that its port is taken. */
const portTakenExitCode = 3;
const healthTimeoutMs = 2_000;

export function listenAddress(env: NodeJS.ProcessEnv = process.env): string {
  return env["WRENN_LISTEN"] ?? defaultListen;
}

export async function hostAgentPart(layout: Layout): Promise<PartDefinition> {
  return {
    name: "host-agent",
    ...(await ourProgram("@wrenn/host-agent")),
    env: { ...inheritedEnvironment(), WRENN_DIR: layout.root },
    stopSignal: "SIGTERM",
    isReady: () => accepts({ path: layout.hostAgentSocket }),
  };
}

export async function controlPlanePart(layout: Layout, databaseUrl: string): Promise<PartDefinition> {
  const listen = listenAddress();
  return {
    name: "control-plane",
    ...(await ourProgram("@wrenn/control-plane")),
    env: {
      ...inheritedEnvironment(),
      WRENN_DIR: layout.root,
      WRENN_LISTEN: listen,
      WRENN_LOCAL_CREDENTIALS: layout.credentials,
      DATABASE_URL: databaseUrl,
    },
    stopSignal: "SIGTERM",
    isReady: () => isHealthy(`http://${listen}`),
    explainExit: (exitCode) => (exitCode === portTakenExitCode ? portTaken(listen) : null),
  };
}

/** Whether server, database and host all answer. */
export async function isHealthy(url: string): Promise<boolean> {
  try {
    const response = await fetch(`${url}/health`, { signal: AbortSignal.timeout(healthTimeoutMs) });
    const health = healthSchema.safeParse(await response.json());
    return health.success && health.data.status === "ok";
  } catch {
    return false;
  }
}

/**
 * Fails early, before anything is started, when another program listens on the server's port.
 * @throws WrennError `port_taken`, or `invalid_request` for an address that cannot be listened on.
 */
export async function assertPortFree(listen: string): Promise<void> {
  const separator = listen.lastIndexOf(":");
  const host = listen.slice(0, separator).replace(/^\[(.*)\]$/, "$1");
  const port = Number(listen.slice(separator + 1));
  if (separator < 1 || !Number.isInteger(port) || port < 1 || port > 65_535) {
    throw new WrennError("invalid_request", {
      message: `WRENN_LISTEN is "${listen}", which is not ADDRESS:PORT.`,
      suggestion: `Set it to something like ${defaultListen}.`,
    });
  }
  const probe = createServer();
  await new Promise<void>((resolve, reject) => {
    probe.once("error", (cause: NodeJS.ErrnoException) => {
      reject(
        cause.code === "EADDRINUSE"
          ? portTaken(listen)
          : new WrennError("invalid_request", { message: `Nothing can listen on ${listen}: ${cause.message}`, cause }),
      );
    });
    probe.listen({ host, port, exclusive: true }, () => {
      probe.close(() => {
        resolve();
      });
    });
  });
}

function portTaken(listen: string): WrennError {
  return new WrennError("port_taken", {
    message: `${errorRegistry.port_taken.message.replace(/\.$/, "")}, ${listen}.`,
    details: { listen },
  });
}

async function ourProgram(
  packageName: "@wrenn/host-agent" | "@wrenn/control-plane",
): Promise<Pick<PartDefinition, "program" | "args" | "version">> {
  const dist = distOf(packageName);
  return {
    program: process.execPath,
    args: [path.join(dist, "main.js")],
    version: `${readVersion()} ${await newestFile(dist)}`,
  };
}

/** When a program was last built: one that is older than what lies on disk is not adopted. */
async function newestFile(directory: string): Promise<number> {
  const names = await readdir(directory, { recursive: true });
  const times = await Promise.all(
    names.filter((name) => name.endsWith(".js")).map(async (name) => (await stat(path.join(directory, name))).mtimeMs),
  );
  return Math.max(0, ...times);
}

/** What our programs may know of the environment the server was started in; not the secrets of whoever started it. */
function inheritedEnvironment(): Record<string, string> {
  const wanted = /^(?:PATH|HOME|LANG|LC_[A-Z]+|TZ|TMPDIR|NODE_EXTRA_CA_CERTS|WRENN_[A-Z0-9_]+)$/;
  const notForParts = /^WRENN_(?:API_KEY|API_URL|DEBUG|SETUP)$/;
  return Object.fromEntries(
    Object.entries(process.env).flatMap(([name, value]) =>
      value !== undefined && wanted.test(name) && !notForParts.test(name) ? [[name, value]] : [],
    ),
  );
}

async function accepts(address: { path: string }): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(address);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => {
      resolve(false);
    });
  });
}
