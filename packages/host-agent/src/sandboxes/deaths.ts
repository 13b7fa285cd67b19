/** Sees to it that a VM which ends by itself frees what it held, and that its sandbox says why. */
import type { VmEnd } from "../engines/engine.ts";
import type { SandboxContext, SandboxEntry } from "./context.ts";
import { type SandboxEntries, settled } from "./entries.ts";
import { reapSandbox } from "./reap.ts";
import { watchVm } from "./watch.ts";

export class Deaths {
  readonly #context: SandboxContext;
  readonly #entries: SandboxEntries;

  constructor(context: SandboxContext, entries: SandboxEntries) {
    this.#context = context;
    this.#entries = entries;
  }

  /** From now until the sandbox's present VM has ended, by itself or on purpose. */
  watch(entry: SandboxEntry): void {
    const { vm } = entry.holdings;
    const awaitEnd = async (): Promise<void> => {
      const end = await watchVm(entry.holdings);
      // The operation under way may be writing down that the VM runs, or freeing it; what it leaves is what counts.
      while (entry.operation !== null) await settled(entry.operation.done);
      const isKnown = this.#entries.find(entry.journal.sandboxId) === entry && entry.holdings.vm === vm;
      if (isKnown) await this.reap(entry, end);
    };
    void awaitEnd();
  }

  /** Never rejects: what could not be freed is logged, stays in the journal, and is freed by the destroy or the next start. */
  async reap(entry: SandboxEntry, end: VmEnd): Promise<void> {
    const { sandboxId } = entry.journal;
    const { log } = this.#context;
    log.warn({ sandboxId, code: end.code, reason: end.message }, "died");
    try {
      await this.#entries.operate(entry, "reap", async () => {
        entry.gone.abort();
        const { journal } = entry;
        if (journal.state === "running") await reapSandbox(this.#context, entry, journal, end);
      });
    } catch (error) {
      log.error({ sandboxId, err: error }, "could not free everything of a dead sandbox");
    }
  }
}
