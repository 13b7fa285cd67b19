/**
 * What the reconciler refuses to do before an operator has decided who is right, the database or the hosts (docs/decisions/0009).
 * Said in the log when it changes, and for as long as it lasts in the metrics and in what the health probes answer.
 */
import type { HostId } from "@wrenn/contract";
import type { Logger } from "pino";

export const heldBackKinds = ["unknown_sandboxes", "unknown_snapshots", "lost_sandboxes"] as const;
export type HeldBackKind = (typeof heldBackKinds)[number];

const says: Readonly<Record<HeldBackKind, string>> = {
  unknown_sandboxes: "the host holds sandboxes that this database has never heard of: refusing to touch them",
  unknown_snapshots: "the host holds snapshots that this database has never heard of: refusing to touch them",
  lost_sandboxes: "the host has lost most of the sandboxes that this database says it holds: refusing to give them up",
};

const whatToDo =
  "Start Wrenn with the database and the WRENN_DIR that belong together; or, if the database is right, start it once with " +
  "WRENN_TRUST_DATABASE=1";

export class HeldBack {
  readonly #log: Logger;
  readonly #ids = new Map<HeldBackKind, Map<HostId, string>>(heldBackKinds.map((kind) => [kind, new Map()]));

  constructor(log: Logger) {
    this.#log = log;
  }

  /** What is held back on this host now, by id: nothing, when it was before, ends it. */
  note(kind: HeldBackKind, hostId: HostId, ids: readonly string[]): void {
    const ofKind = this.#ids.get(kind);
    const report = ids.toSorted().join(" ");
    if (ofKind === undefined || report === (ofKind.get(hostId) ?? "")) return;
    ofKind.set(hostId, report);
    if (ids.length === 0) this.#log.info({ hostId, kind }, "nothing of this kind is held back any more");
    else this.#log.error({ hostId, kind, ids }, `${says[kind]}. ${whatToDo}`);
  }

  count(kind: HeldBackKind): number {
    const reports = [...(this.#ids.get(kind)?.values() ?? [])];
    return reports.reduce((sum, report) => sum + (report === "" ? 0 : report.split(" ").length), 0);
  }

  get isAny(): boolean {
    return heldBackKinds.some((kind) => this.count(kind) > 0);
  }
}
