/** What the host agent itself asks of a guest agent: whether it is there, and to take its configuration. */
import { randomBytes } from "node:crypto";
import { request } from "node:http";
import { createConnection, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { deadlines, guestAgentPort, parseUuid, type SandboxId, WrennError } from "@wrenn/contract";
import { pollUntil, withTimeLimit } from "@wrenn/system";
import type { BaseLogger } from "pino";
import { z } from "zod";
import { deferred } from "../deferred.ts";

export interface GuestConfiguration {
  readonly sandboxId: SandboxId;
  /** Null leaves what a frozen guest has. */
  readonly envs: Readonly<Record<string, string>> | null;
  readonly accessToken: string;
  readonly dns: readonly string[];
  /** Of a guest that was frozen: the token that it knows, or null where it has none yet. */
  readonly frozen: { readonly accessToken: string | null } | null;
}

/** A connection attempt is begun this often while a guest boots: what one misses, the next finds this much later. */
const attemptIntervalMs = 20;

/**
 * How long one attempt lives. A guest that is not up yet drops it silently, and TCP itself would repeat it only after a whole second;
 * a busy emulated guest needs a while to answer.
 */
const attemptLifetimeMs = 1_000;

/** As much as the kernel's generator holds (RFC 4086 asks for 128 bits; its pool has 256). */
const entropyBytes = 64;

/** Far above any answer of a guest agent: a guest must not fill the host agent's memory. */
const maxAnswerLength = 65_536;

/** Whose guest a golden snapshot is. */
const nobody = parseUuid("sandbox", "00000000-0000-0000-0000-000000000000");

/** The user that commands run as when a caller names none; every template has it. */
const defaultUser = "user";

/**
 * Resolves as soon as the guest's agent accepts a connection.
 * @throws the signal's reason when it is aborted first
 */
export async function waitForGuest(address: string, signal: AbortSignal): Promise<void> {
  const attempts = new Set<Socket>();
  const reached = deferred<"reached">();
  try {
    for (;;) {
      signal.throwIfAborted();
      const socket = createConnection({ host: address, port: guestAgentPort });
      attempts.add(socket);
      socket.setTimeout(attemptLifetimeMs, () => socket.destroy());
      socket.once("connect", () => {
        reached.resolve("reached");
      });
      // Refused or unreachable: not yet.
      socket.once("error", () => socket.destroy());
      socket.once("close", () => attempts.delete(socket));
      if ((await Promise.race([reached.promise, delay(attemptIntervalMs)])) === "reached") return;
    }
  } finally {
    for (const socket of attempts) socket.destroy();
  }
}

/** What a guest confirms that was frozen before: else it might share keys with its copies. */
const reseededSchema = z.object({ reseeded: z.literal(true) });

/**
 * Gives the guest its identity, clock, entropy, token and environment.
 * @throws WrennError `guest_init_failed`, also when a guest that was frozen does not confirm that it has new entropy
 */
export async function initialiseGuest(
  address: string,
  configuration: GuestConfiguration,
  signal: AbortSignal,
): Promise<void> {
  const { sandboxId, envs, accessToken, dns, frozen } = configuration;
  const answer = await init(
    address,
    {
      ...(envs === null ? {} : { envVars: envs }),
      ...(frozen === null ? {} : { restored: true }),
      accessToken,
      ...identityOf(sandboxId),
      dns,
    },
    frozen?.accessToken ?? null,
    signal,
  );
  if (frozen !== null && !reseededSchema.safeParse(parseJson(answer)).success) {
    throw new WrennError("guest_init_failed", {
      message:
        "The guest did not confirm that it has new entropy, without which it could share secrets with its copies.",
    });
  }
}

/**
 * Gives a guest that is about to be frozen for everybody what all of them have, and in the place of what each has for itself something
 * that is as long: its copies find their files in memory, and write over blocks that there are. It stays without a token.
 * @throws WrennError `guest_init_failed`
 */
export async function initialiseGolden(address: string, dns: readonly string[], signal: AbortSignal): Promise<void> {
  await init(address, { restored: true, ...identityOf(nobody), dns }, null, signal);
}

function identityOf(id: SandboxId): Record<string, string> {
  const machineId = id.replaceAll("-", "");
  return {
    timestamp: new Date().toISOString(),
    defaultUser,
    hostname: `sb-${machineId.slice(-12)}`,
    machineId,
    entropy: randomBytes(entropyBytes).toString("base64"),
  };
}

/** @returns the guest's answer */
async function init(
  address: string,
  settings: Readonly<Record<string, unknown>>,
  token: string | null,
  signal: AbortSignal,
): Promise<string> {
  const late = (): Error => new Error(`No answer within ${deadlines.guestInit} ms.`);
  const post = (limited: AbortSignal): Promise<GuestAnswer> =>
    call({ address, method: "POST", path: "/init", body: JSON.stringify(settings), token }, limited);
  let answer: GuestAnswer;
  try {
    answer = await withTimeLimit(deadlines.guestInit, late, [signal], post);
  } catch (cause) {
    signal.throwIfAborted();
    throw new WrennError("guest_init_failed", { cause });
  }
  if (answer.status < 300) return answer.body;
  throw new WrennError("guest_init_failed", {
    message: `The guest refused its configuration with ${answer.status}: ${answer.body.slice(0, 300)}`,
  });
}

/**
 * Has the guest write back what it has not written to its disk yet, so that the disk alone is recent too. As far as it gets in time:
 * what is not written is in the memory that is frozen with it.
 */
export async function syncGuest(address: string, log: BaseLogger): Promise<void> {
  const late = (): Error => new Error(`No answer within ${deadlines.guestSync} ms.`);
  const post = (limited: AbortSignal): Promise<GuestAnswer> =>
    call({ address, method: "POST", path: "/sync", body: "", token: null }, limited);
  try {
    await withTimeLimit(deadlines.guestSync, late, [], post);
  } catch (error) {
    log.warn({ err: error }, "a guest did not write back before it was frozen");
  }
}

/** Runs a command in a guest that has no token yet, and waits for its end, whatever that is. */
export async function runInGuest(address: string, command: readonly string[], signal: AbortSignal): Promise<void> {
  const [cmd, ...args] = command;
  const message = Buffer.from(JSON.stringify({ process: { cmd, args, envs: {}, cwd: "/" } }));
  // Connect's framing: a byte of flags, the length, the message.
  const envelope = Buffer.alloc(5);
  envelope.writeUInt32BE(message.length, 1);
  const body = Buffer.concat([envelope, message]);
  const type = "application/connect+json";
  await call({ address, method: "POST", path: "/process.Process/Start", body, token: null, type }, signal);
}

/** Whether the guest's agent answers before the deadline; asked again and again until then. */
export async function guestAnswers(address: string, timeoutMs: number): Promise<boolean> {
  const late = (): Error => new Error("No answer yet.");
  const get = (limited: AbortSignal): Promise<GuestAnswer> =>
    call({ address, method: "GET", path: "/health", body: "", token: null }, limited);
  const answered = await pollUntil(
    async () => {
      try {
        const { status } = await withTimeLimit(attemptLifetimeMs * 2, late, [], get);
        return status < 300 ? true : null;
      } catch {
        return null;
      }
    },
    { timeoutMs, intervalMs: attemptIntervalMs },
  );
  return answered === true;
}

interface GuestAnswer {
  readonly status: number;
  readonly body: string;
}

interface GuestCall {
  readonly address: string;
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly body: string | Buffer;
  readonly token: string | null;
  readonly type?: string;
}

async function call(
  { address, method, path, body, token, type }: GuestCall,
  signal: AbortSignal,
): Promise<GuestAnswer> {
  return new Promise((resolve, reject) => {
    const headers = {
      "content-type": type ?? "application/json",
      "content-length": Buffer.byteLength(body),
      ...(token === null ? {} : { "x-access-token": token }),
    };
    const options = { host: address, port: guestAgentPort, method, path, headers, agent: false, noDelay: true, signal };
    const outgoing = request(options, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => {
        text += chunk;
        if (text.length > maxAnswerLength) response.destroy(new Error("The guest's answer is too long."));
      });
      response.once("end", () => {
        resolve({ status: response.statusCode ?? 0, body: text });
      });
      response.once("error", reject);
    });
    outgoing.once("error", reject);
    outgoing.end(body);
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
