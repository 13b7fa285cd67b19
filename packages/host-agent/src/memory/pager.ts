/** `wrenn-pager`, the program that captures, folds, verifies and serves memory images (docs/memory-images.md). */
import { rm } from "node:fs/promises";
import { deadlines, type ErrorCode, type LayerId, WrennError } from "@wrenn/contract";
import {
  endProcess,
  identifyProcess,
  type Layout,
  pollUntil,
  type ProcessIdentity,
  readUntrusted,
  type RunOptions,
  runUnchecked,
  type SandboxLayout,
  startDaemon,
} from "@wrenn/system";
import { z } from "zod";
import type { CgroupMembership } from "../engines/cgroups.ts";
import { idSchema } from "./manifest.ts";

export interface CaptureRequest {
  /** The process whose memory it is. Its guest stands still. */
  readonly pid: number;
  readonly memoryMib: number;
  /**
   * How guest memory is found in it: by the file that it maps, by one of several, each part of which lies at its own address, or by what
   * its pager has written down. Or where it has written it itself.
   */
  readonly mapped:
    | { readonly file: string }
    | { readonly layeredOver: string }
    | { readonly status: string }
    | { readonly written: string };
  /** The header of the image that it started from; null for a boot. */
  readonly parentHeader: string | null;
  /** Where what has changed is written. When nothing has, there is no such layer afterwards. */
  readonly layer: LayerId;
  /** The file to write. */
  readonly header: string;
}

const imageSchema = z.object({
  layers: z.array(idSchema("layer")),
  flat: z.boolean(),
  extents: z.number().int().nonnegative(),
});
export type MemoryImage = z.infer<typeof imageSchema>;

export interface CaptureResult extends MemoryImage {
  readonly pagesExamined: number;
  readonly pagesWritten: number;
  readonly pagesZeroed: number;
  readonly bytesWritten: number;
}

export interface FoldRequest {
  readonly header: string;
  readonly layer: LayerId;
  readonly output: string;
}

export interface PagerRequest {
  readonly files: SandboxLayout;
  /** Who the engine runs as, and the pager too. */
  readonly uid: number;
  readonly header: string;
  /** What an earlier run needed first. */
  readonly workingSet: string | null;
  /** Where what this run needs first is written. */
  readonly record: string;
  readonly cgroup: CgroupMembership;
}

const pagerStatusSchema = z.object({
  state: z.enum(["listening", "serving", "complete", "failed"]),
  message: z.string().optional(),
  regions: z
    .array(z.object({ base_host_virt_addr: z.number().int(), size: z.number().int(), offset: z.number().int() }))
    .default([]),
});
export type PagerStatus = z.infer<typeof pagerStatusSchema>;

export interface Pager {
  readonly identity: ProcessIdentity;
  /** What it last wrote down; null when there is nothing that can be read. */
  status(): Promise<PagerStatus | null>;
}

const captureSchema = imageSchema.extend({
  pages_examined: z.number().int(),
  pages_written: z.number().int(),
  pages_zeroed: z.number().int(),
  bytes_written: z.number().int(),
});

const inspectSchema = imageSchema.extend({ memory_size: z.number().int() });

const verifySchema = z.object({ in_place: idSchema("layer").nullable() });

const failureSchema = z.object({ error: z.object({ code: z.string(), message: z.string() }) });

/** The program's own codes (docs/memory-images.md), where ours says more than that it failed. */
const failureCodes: ReadonlyMap<string, ErrorCode> = new Map([
  ["header_missing", "snapshot_damaged"],
  ["header_damaged", "snapshot_damaged"],
  ["layer_missing", "snapshot_damaged"],
  ["layer_damaged", "snapshot_damaged"],
  ["disk_full", "host_out_of_disk"],
]);

/** It is two lines long; an engine's user can write it, too. */
const maxStatusBytes = 65_536;
const maxLogBytes = 1_048_576;

const mebibyte = 1_048_576;

export class PagerProgram {
  readonly #layout: Layout;

  constructor(layout: Layout) {
    this.#layout = layout;
  }

  /** @throws WrennError `snapshot_damaged` for a parent that cannot be read, `host_out_of_disk`, `engine_failed` */
  async capture(request: CaptureRequest, signal: AbortSignal): Promise<CaptureResult> {
    const { pid, memoryMib, mapped, parentHeader, layer, header } = request;
    const args = [
      await placeOf(pid, mapped),
      ["--memory-size", String(memoryMib * mebibyte)],
      parentHeader === null ? [] : ["--parent", parentHeader],
      ["--layers", this.#layout.layers, "--layer", layer, "--header", header],
    ];
    const options = { timeoutMs: deadlines.memoryCapture, signal };
    const result = captureSchema.parse(await this.#run(["capture", ...args.flat()], options));
    const { layers, flat, extents } = result;
    // Where nothing has changed, a layer would be kept by nobody.
    if (!layers.includes(layer)) await rm(this.#layout.layer(layer).directory, { recursive: true, force: true });
    return {
      ...{ layers, flat, extents },
      pagesExamined: result.pages_examined,
      pagesWritten: result.pages_written,
      pagesZeroed: result.pages_zeroed,
      bytesWritten: result.bytes_written,
    };
  }

  /** Writes the same image anew, as one flat layer. @throws WrennError as `capture` */
  async fold({ header, layer, output }: FoldRequest, signal: AbortSignal): Promise<MemoryImage> {
    const args = ["--header", header, "--layers", this.#layout.layers, "--layer", layer, "--output", output];
    return imageSchema.parse(await this.#run(["fold", ...args], { timeoutMs: deadlines.memoryFold, signal }));
  }

  /**
   * Reads every byte of every layer but those known already.
   * @returns a layer of which every part lies at its own address, if there is one
   * @throws WrennError `snapshot_damaged`
   */
  async verify(header: string, known: readonly LayerId[]): Promise<LayerId | null> {
    const args = ["--header", header, "--layers", this.#layout.layers, ...known.flatMap((layer) => ["--known", layer])];
    return verifySchema.parse(await this.#run(["verify", ...args], { timeoutMs: deadlines.memoryVerify })).in_place;
  }

  /** What a header says. @throws WrennError `snapshot_damaged` */
  async inspect(header: string): Promise<MemoryImage & { readonly memoryMib: number }> {
    const result = inspectSchema.parse(await this.#run(["inspect", "--header", header], {}));
    const { layers, flat, extents } = result;
    return { layers, flat, extents, memoryMib: result.memory_size / mebibyte };
  }

  /**
   * Starts the process that serves one VM's memory, which outlives this one and ends with the VM. Resolves when it listens on
   * `files.pagerSocket`.
   * @throws WrennError as `capture`; nothing is left running then
   */
  async start(request: PagerRequest, signal: AbortSignal): Promise<Pager> {
    const { files, uid, header, workingSet, record, cgroup } = request;
    // The sandbox's engine could have left links in their places, which root would follow. And what a pager was about to put there when it
    // was killed belongs to the user of another slot: in this directory, which is sticky, the next pager could not remove it.
    for (const file of [files.pagerSocket, files.pagerStatus, files.pagerLog, record]) {
      for (const name of [file, `${file}.new`]) await rm(name, { recursive: true, force: true });
    }
    const args = [
      ["--socket", files.pagerSocket, "--status", files.pagerStatus, "--uid", String(uid)],
      ["--header", header, "--layers", this.#layout.layers, "--record", record],
      workingSet === null ? [] : ["--working-set", workingSet],
      cgroup.procsFiles.flatMap((file) => ["--cgroup-procs", file]),
    ];
    const { pid, exited } = await startDaemon(this.#layout.pager, ["serve", ...args.flat()], {
      logFile: files.pagerLog,
      env: environment(),
    });
    const identity = await identifyProcess(pid);
    let running = identity !== null;
    void exited.then(() => (running = false));
    try {
      const look = async (): Promise<PagerStatus | null> => {
        const status = await readStatus(files.pagerStatus);
        return status ?? (running ? null : { state: "failed", regions: [] });
      };
      const status = await pollUntil(look, { timeoutMs: deadlines.pagerStart, intervalMs: 2, signal });
      if (identity === null || status === null || status.state === "failed") throw await startFailure(files, status);
    } catch (error) {
      if (identity !== null) await endProcess(identity, deadlines.engineQuit);
      throw error;
    }
    return pagerOf(identity, files);
  }

  async #run(args: readonly string[], options: RunOptions): Promise<unknown> {
    const { exitCode, stdout, stderr } = await runUnchecked(this.#layout.pager, args, {
      ...options,
      env: environment(),
    });
    if (exitCode !== 0)
      throw failure(stderr, `wrenn-pager ${args[0]} exited with ${exitCode}: ${stderr.slice(-2_000)}`);
    return JSON.parse(stdout) as unknown;
  }
}

/** A pager that runs already, perhaps since the life of another host agent process. */
export function pagerOf(identity: ProcessIdentity, files: SandboxLayout): Pager {
  return { identity, status: () => readStatus(files.pagerStatus) };
}

/** Where guest memory is, in the program's words. */
async function placeOf(pid: number, mapped: CaptureRequest["mapped"]): Promise<string[]> {
  if ("written" in mapped) return ["--memory-file", mapped.written];
  return ["--pid", String(pid), ...(await regionArguments(mapped))];
}

async function regionArguments(mapped: Exclude<CaptureRequest["mapped"], { written: string }>): Promise<string[]> {
  if ("file" in mapped) return ["--mapped-file", mapped.file];
  if ("layeredOver" in mapped) return ["--layered-over", mapped.layeredOver];
  return ["--address", await regionAddress(mapped.status)];
}

/** Where in the engine's process guest memory begins, as `wrenn-pager capture` wants it. */
async function regionAddress(statusFile: string): Promise<string> {
  const region = (await readStatus(statusFile))?.regions[0];
  if (region === undefined) {
    throw new WrennError("engine_failed", { message: "The pager has not been told where the guest's memory lies." });
  }
  return `0x${region.base_host_virt_addr.toString(16)}`;
}

async function readStatus(file: string): Promise<PagerStatus | null> {
  const content = await readUntrusted(file, maxStatusBytes);
  return content === null ? null : (parsedOr(pagerStatusSchema, content.toString()) ?? null);
}

async function startFailure(files: SandboxLayout, status: PagerStatus | null): Promise<WrennError> {
  const log = (await readUntrusted(files.pagerLog, maxLogBytes))?.toString() ?? "";
  const late = status === null ? `did not listen within ${deadlines.pagerStart} ms` : "could not start";
  return failure(log, `wrenn-pager ${late}: ${status?.message ?? log.slice(-2_000)}`);
}

/** The error that the program printed last, or else one with this message. */
function failure(stderr: string, message: string): WrennError {
  const printed = parsedOr(failureSchema, stderr.trimEnd().split("\n").at(-1) ?? "")?.error;
  if (printed === undefined) return new WrennError("engine_failed", { message });
  return new WrennError(failureCodes.get(printed.code) ?? "engine_failed", {
    message: `wrenn-pager: ${printed.message}.`,
    details: { pager_code: printed.code },
  });
}

/** Undefined for what is not JSON of this shape. */
function parsedOr<Value>(schema: z.ZodType<Value>, text: string): Value | undefined {
  try {
    return schema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}

/** What it gets to see of the host agent's environment. */
function environment(): NodeJS.ProcessEnv {
  return { PATH: process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin" };
}
