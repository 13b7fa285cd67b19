/** One line that shows what is being waited for and for how long, on terminals; elsewhere at most a line per step. */
import { formatSeconds } from "../units.ts";

export interface ProgressOptions {
  quiet: boolean;
  stream?: NodeJS.WriteStream;
}

const redrawMs = 100;
/** Steps shorter than this are not worth a flicker. */
const firstDrawMs = 150;

export class Progress {
  readonly #quiet: boolean;
  readonly #stream: NodeJS.WriteStream;

  constructor(options: ProgressOptions) {
    this.#quiet = options.quiet;
    this.#stream = options.stream ?? process.stderr;
  }

  /**
   * Shows the step on a terminal while the work lasts, and nothing of it afterwards.
   * @param describe how far it is; default the time it has taken
   */
  async during<Result>(
    step: string,
    work: () => Promise<Result>,
    describe: (elapsedMs: number) => string = formatSeconds,
  ): Promise<Result> {
    if (this.#quiet || !this.#stream.isTTY) return work();
    const stop = this.#draw(step, describe);
    try {
      return await work();
    } finally {
      stop();
    }
  }

  /** As `during`, and leaves a line with the time it took: for what happens once. */
  async milestone<Result>(step: string, work: () => Promise<Result>): Promise<Result> {
    const start = performance.now();
    const result = await this.during(step, work);
    if (!this.#quiet) this.#stream.write(`${step} … ${formatSeconds(performance.now() - start)}\n`);
    return result;
  }

  #draw(step: string, describe: (elapsedMs: number) => string): () => void {
    const start = performance.now();
    let drawn = false;
    const draw = (): void => {
      const elapsed = performance.now() - start;
      if (elapsed < firstDrawMs) return;
      drawn = true;
      // A line that wraps could not be drawn over.
      const line = `${step} … ${describe(elapsed)}`.slice(0, (this.#stream.columns || 80) - 1);
      this.#stream.write(`\r${line}\u001B[K`);
    };
    const timer = setInterval(draw, redrawMs);
    return () => {
      clearInterval(timer);
      if (drawn) this.#stream.write("\r\u001B[K");
    };
  }
}
