/** What the host agent itself asks of a guest agent: whether it is there, and to take its configuration. */
import { randomBytes } from "node:crypto";
import { request } from "node:http";
import { createConnection, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { deadlines, guestAgentPort, type SandboxId, WrennError } from "@wrenn/contract";
import { pollUntil, withTimeLimit } from "@wrenn/system";
import { deferred } from "../deferred.ts";

export interface GuestConfiguration {
  readonly sandboxId: SandboxId;
  readonly envs: Readonly<Record<string, string>>;
  readonly accessToken: string;
  readonly dns: readonly string[];
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

/**
 * Gives the guest its identity, clock, entropy, token and environment.
 * @throws WrennError `guest_init_failed`
 */
export async function initialiseGuest(
  address: string,
  configuration: GuestConfiguration,
  signal: AbortSignal,
): Promise<void> {
  const { sandboxId, envs, accessToken, dns } = configuration;
  const machineId = sandboxId.replaceAll("-", "");
  const body = JSON.stringify({
    envVars: envs,
    accessToken,
    timestamp: new Date().toISOString(),
    defaultUser,
    hostname: `sb-${machineId.slice(-12)}`,
    machineId,
    entropy: randomBytes(entropyBytes).toString("base64"),
    dns,
  });
  const late = (): Error => new Error(`No answer within ${deadlines.guestInit} ms.`);
  let status: number;
  let answer: string;
  try {
    const post = (limited: AbortSignal): Promise<GuestAnswer> => call(address, "POST", "/init", body, limited);
    ({ status, body: answer } = await withTimeLimit(deadlines.guestInit, late, [signal], post));
  } catch (cause) {
    signal.throwIfAborted();
    throw new WrennError("guest_init_failed", { cause });
  }
  if (status >= 300) {
    throw new WrennError("guest_init_failed", {
      message: `The guest refused its configuration with ${status}: ${answer.slice(0, 300)}`,
    });
  }
}

/** Whether the guest's agent answers before the deadline; asked again and again until then. */
export async function guestAnswers(address: string, timeoutMs: number): Promise<boolean> {
  const late = (): Error => new Error("No answer yet.");
  const get = (limited: AbortSignal): Promise<GuestAnswer> => call(address, "GET", "/health", "", limited);
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

async function call(
  address: string,
  method: "GET" | "POST",
  path: string,
  body: string,
  signal: AbortSignal,
): Promise<GuestAnswer> {
  return new Promise((resolve, reject) => {
    const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(body) };
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
