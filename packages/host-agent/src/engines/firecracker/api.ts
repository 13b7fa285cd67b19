/** Firecracker's API: HTTP on a unix socket, one request a connection, with a deadline each. Only what Wrenn asks for. */
import { request } from "node:http";
import { connect } from "node:net";
import { deadlines, WrennError } from "@wrenn/contract";
import { hasErrno } from "@wrenn/system";
import { z } from "zod";

const faultSchema = z.object({ fault_message: z.string() });

const instanceSchema = z.object({
  id: z.string(),
  state: z.enum(["Not started", "Running", "Paused"]),
  vmm_version: z.string(),
});
export type Instance = z.infer<typeof instanceSchema>;

export interface SnapshotToLoad {
  /** Paths are in the jail. */
  readonly snapshot_path: string;
  readonly mem_backend: { readonly backend_type: "File" | "Uffd"; readonly backend_path: string };
  /** Not part of a frozen state: it has to be asked for anew each time. */
  readonly track_dirty_pages: boolean;
  readonly resume_vm: boolean;
}

export interface SnapshotToCreate {
  /** `Diff`: only pages that have changed since the last one, or since the VM was started. */
  readonly snapshot_type: "Full" | "Diff";
  readonly snapshot_path: string;
  readonly mem_file_path: string;
}

/** Far above any answer; a compromised engine must not fill the host agent's memory. */
const maxAnswerBytes = 65_536;

export class FirecrackerApi {
  readonly #socketPath: string;

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
  }

  /** Whether anybody does: Firecracker gives its socket a name a moment before it listens. */
  async listens(): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const socket = connect(this.#socketPath, () => {
        socket.destroy();
        resolve(true);
      });
      socket.once("error", (cause) => {
        if (hasErrno(cause, "ECONNREFUSED")) resolve(false);
        else reject(failed("Firecracker's socket cannot be dialled.", cause));
      });
    });
  }

  /** @throws WrennError `engine_failed`, as all of these */
  async instance(timeoutMs: number = deadlines.engineCommand): Promise<Instance> {
    const instance = instanceSchema.safeParse(await this.#call("GET", "/", undefined, timeoutMs));
    if (instance.success) return instance.data;
    throw failed("Firecracker does not say what it is.", instance.error);
  }

  async loadSnapshot(snapshot: SnapshotToLoad): Promise<void> {
    await this.#call("PUT", "/snapshot/load", snapshot, deadlines.engineLoad);
  }

  async createSnapshot(snapshot: SnapshotToCreate): Promise<void> {
    await this.#call("PUT", "/snapshot/create", snapshot, deadlines.memoryCapture);
  }

  /** No error when that is its state already. */
  async setState(state: "Paused" | "Resumed"): Promise<void> {
    await this.#call("PATCH", "/vm", { state }, deadlines.engineFreeze);
  }

  /** What it answered, parsed; undefined for nothing. */
  async #call(
    method: "GET" | "PUT" | "PATCH",
    path: string,
    body?: object,
    timeoutMs: number = deadlines.engineCommand,
  ): Promise<unknown> {
    const what = `${method} ${path}`;
    const { status, text } = await exchange(this.#socketPath, { method, path, body, timeoutMs });
    if (status >= 200 && status < 300) return text === "" ? undefined : parsed(text);
    const fault = faultSchema.safeParse(parsed(text));
    throw failed(`Firecracker refused ${what}: ${fault.success ? fault.data.fault_message : `status ${status}`}`);
  }
}

interface Exchange {
  readonly method: string;
  readonly path: string;
  readonly body: object | undefined;
  readonly timeoutMs: number;
}

/** One request and all of its answer. */
async function exchange(
  socketPath: string,
  { method, path, body, timeoutMs }: Exchange,
): Promise<{ status: number; text: string }> {
  const what = `${method} ${path}`;
  const content = body === undefined ? undefined : JSON.stringify(body);
  const headers = content === undefined ? {} : { "content-type": "application/json", "content-length": content.length };
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath, method, path, headers, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      response.on("data", (chunk: Buffer) => {
        chunks.push(chunk);
        bytes += chunk.length;
        if (bytes > maxAnswerBytes) sent.destroy(failed(`Firecracker's answer to ${what} does not end.`));
      });
      response.once("error", (cause) => {
        reject(cause instanceof WrennError ? cause : failed(`Firecracker broke off its answer to ${what}.`, cause));
      });
      response.once("end", () => {
        resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString() });
      });
    });
    const timer = setTimeout(() => {
      sent.destroy(failed(`Firecracker did not answer ${what} within ${timeoutMs} ms.`));
    }, timeoutMs);
    sent.once("close", () => {
      clearTimeout(timer);
      reject(failed(`Firecracker closed the connection without an answer to ${what}.`));
    });
    sent.once("error", (cause) => {
      reject(cause instanceof WrennError ? cause : failed(`Firecracker did not answer ${what}.`, cause));
    });
    sent.end(content);
  });
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function failed(message: string, cause?: unknown): WrennError {
  return new WrennError("engine_failed", { message, ...(cause === undefined ? {} : { cause }) });
}
