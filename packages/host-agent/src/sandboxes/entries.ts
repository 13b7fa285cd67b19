/** Which sandboxes there are in memory, and that only one thing is done to each at a time. */
import { asWrennError, type SandboxId, WrennError } from "@wrenn/contract";
import type { Layout } from "@wrenn/system";
import { asDiskError } from "../memory/sizes.ts";
import { noHoldings, type OperationKind, reachable, type SandboxEntry } from "./context.ts";
import type { Journal } from "./journal.ts";

export class SandboxEntries {
  readonly #layout: Layout;
  readonly #entries = new Map<SandboxId, SandboxEntry>();

  constructor(layout: Layout) {
    this.#layout = layout;
  }

  add(journal: Journal): SandboxEntry {
    const holdings = noHoldings(this.#layout.sandbox(journal.sandboxId));
    const entry: SandboxEntry = { journal, holdings, gone: reachable(), operation: null };
    this.#entries.set(journal.sandboxId, entry);
    return entry;
  }

  all(): SandboxEntry[] {
    return [...this.#entries.values()];
  }

  find(id: SandboxId): SandboxEntry | undefined {
    return this.#entries.get(id);
  }

  /** @throws WrennError `sandbox_not_found` */
  require(id: SandboxId): SandboxEntry {
    const entry = this.#entries.get(id);
    if (entry === undefined) throw new WrennError("sandbox_not_found");
    return entry;
  }

  /** The entry, once an operation of the same kind that is under way has ended well, or a death has been dealt with. */
  async join(id: SandboxId, kind: OperationKind): Promise<SandboxEntry> {
    const entry = this.require(id);
    while (entry.operation?.kind === "reap") await settled(entry.operation.done);
    if (entry.operation?.kind === kind) await entry.operation.done;
    return entry;
  }

  remove({ journal }: SandboxEntry): void {
    this.#entries.delete(journal.sandboxId);
  }

  /** @throws WrennError `sandbox_busy`, naming the operation under way; else what the work throws */
  async operate(entry: SandboxEntry, kind: OperationKind, work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    if (entry.operation !== null) {
      const operation = entry.operation.kind;
      throw new WrennError("sandbox_busy", {
        message: `The sandbox is busy: ${operation} is under way.`,
        details: { operation },
      });
    }
    const abort = new AbortController();
    const run = async (): Promise<void> => {
      try {
        await work(abort.signal);
      } catch (error) {
        throw failureOf(asDiskError(error), abort.signal);
      } finally {
        entry.operation = null;
      }
    };
    // Noted before the work begins: nothing else may begin then, not even within its first synchronous part.
    const done = Promise.resolve().then(run);
    entry.operation = { kind, done, abort };
    await done;
  }
}

/** An abort comes back as whatever it has interrupted; who asked for the operation is told what it was aborted for. */
function failureOf(error: unknown, { aborted, reason }: AbortSignal): WrennError {
  const failure = asWrennError(error);
  if (!aborted || !(reason instanceof WrennError) || failure === reason) return failure;
  return new WrennError(reason.code, { message: reason.message, cause: failure });
}

/** Waits for a promise whose failure somebody else is told. */
export async function settled(promise: Promise<unknown>): Promise<void> {
  try {
    await promise;
  } catch {
    // Whoever began it is told.
  }
}
