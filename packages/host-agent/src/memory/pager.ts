/** `wrenn-pager`, the program that captures, folds, verifies and serves memory images (docs/memory-images.md). */
import type { LayerId } from "@wrenn/contract";
import type { Layout, ProcessIdentity, SandboxLayout } from "@wrenn/system";
import { z } from "zod";
import type { CgroupMembership } from "../engines/cgroups.ts";
import { idSchema } from "./manifest.ts";

export interface CaptureRequest {
  /** The process whose memory it is. Its guest stands still. */
  readonly pid: number;
  readonly memoryMib: number;
  /** How guest memory is found in it: by the file that it maps, or by what its pager has written down. */
  readonly mapped: { readonly file: string } | { readonly status: string };
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
  /** What it last wrote down; null when that is missing or cannot be read. */
  status(): Promise<PagerStatus | null>;
}

export class PagerProgram {
  readonly #layout: Layout;

  constructor(layout: Layout) {
    this.#layout = layout;
  }

  /** @throws WrennError `snapshot_damaged` for a parent that cannot be read, `host_out_of_disk`, `engine_failed` */
  async capture(request: CaptureRequest, signal: AbortSignal): Promise<CaptureResult> {
    throw new Error(`${this.#layout.root} ${request.pid} ${signal.aborted}`);
  }

  /** Writes the same image anew, as one flat layer. @throws WrennError as `capture` */
  async fold(request: FoldRequest, signal: AbortSignal): Promise<MemoryImage> {
    throw new Error(`${request.header} ${signal.aborted}`);
  }

  /** Reads every byte of every layer. @throws WrennError `snapshot_damaged` */
  async verify(header: string, signal: AbortSignal): Promise<void> {
    throw new Error(`${header} ${signal.aborted}`);
  }

  async inspect(header: string, signal: AbortSignal): Promise<MemoryImage & { readonly memoryBytes: number }> {
    throw new Error(`${header} ${signal.aborted}`);
  }

  /** Resolves when it listens on `files.pagerSocket`. @throws WrennError as `capture`; nothing is left running then */
  async start(request: PagerRequest, signal: AbortSignal): Promise<Pager> {
    throw new Error(`${request.header} ${signal.aborted}`);
  }

  /** A pager that an earlier host agent started. */
  adopt(identity: ProcessIdentity, files: SandboxLayout): Pager {
    throw new Error(`${identity.pid} ${files.directory}`);
  }
}
