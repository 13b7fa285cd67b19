/** Creating a sandbox once, however often it is asked for with the same Idempotency-Key, and of whichever replica. */
import { asWrennError, deadlines, isErrorCode, WrennError } from "@wrenn/contract";
import type { CreateSandbox, SandboxId, TeamId } from "@wrenn/contract";
import { pollUntil } from "@wrenn/system";
import type { Logger } from "pino";
import type { Store } from "../store/database.ts";
import { findKeyUse } from "../store/idempotency-keys.ts";
import type { KeyedRequest } from "../store/idempotency-keys.ts";
import { findSandbox } from "../store/sandboxes.ts";
import type { NamedSandboxRow } from "../store/sandboxes.ts";
import type { IdempotencyKeys } from "./idempotency-keys.ts";
import type { SandboxCreation } from "./sandbox-creation.ts";

export interface CreationsOptions {
  readonly store: Store;
  readonly creation: SandboxCreation;
  readonly keys: IdempotencyKeys;
  readonly log: Logger;
}

export interface Created {
  readonly row: NamedSandboxRow;
  /** An earlier request with the same key has made it. */
  readonly replayed: boolean;
}

/** How often to look at a key again when its creates fail or others overtake this one. */
const maxAttempts = 5;
const settlePollMs = 250;

export class Creations {
  readonly #store: Store;
  readonly #creation: SandboxCreation;
  readonly #keys: IdempotencyKeys;
  readonly #log: Logger;
  /** Creations under way that repeated requests wait for: those that wait for the same one look together. */
  readonly #settling = new Map<SandboxId, Promise<NamedSandboxRow | null>>();

  constructor({ store, creation, keys, log }: CreationsOptions) {
    this.#store = store;
    this.#creation = creation;
    this.#keys = keys;
    this.#log = log;
  }

  /**
   * Answers once the sandbox runs. With a key that was used for the same request before, it answers that request's sandbox
   * whatever has become of it, after waiting for it if it is on its way. A create that fails leaves its key unused.
   * @throws WrennError what `SandboxCreation.create` throws; `idempotency_conflict` for a key that was used for another request.
   */
  async create(teamId: TeamId, ask: CreateSandbox, key?: string): Promise<Created> {
    if (key === undefined) {
      return { row: await this.#creation.create(teamId, ask, await this.#creation.look(teamId, ask)), replayed: false };
    }
    const keyed = this.#keys.hash(teamId, key, ask);
    for (let attempt = 0; attempt < maxAttempts; attempt += 1) {
      const look = this.#creation.look(teamId, ask);
      // Of no concern to a request that is answered with what is there already.
      look.catch(() => undefined);
      const earlier = await this.#findEarlier(keyed);
      if (earlier !== null) return { row: await this.#outcomeOf(earlier, keyed), replayed: true };
      try {
        return { row: await this.#creation.create(teamId, ask, await look, keyed), replayed: false };
      } catch (error) {
        // Another request with this key may have been faster, and have taken the key or the last room.
        const { code } = asWrennError(error);
        const mayHaveLost = code === "idempotency_conflict" || code === "no_capacity";
        if (!mayHaveLost || (await this.#findEarlier(keyed)) === null) throw error;
      }
    }
    throw new WrennError("sandbox_busy", { message: "Other requests with this Idempotency-Key are under way." });
  }

  /** The sandbox that the key stands for, unless it has never run. */
  async #findEarlier(keyed: KeyedRequest): Promise<SandboxId | null> {
    const use = await findKeyUse(this.#store, keyed);
    if (use === null || use.failure !== null) return null;
    if (!use.requestHash.equals(keyed.requestHash)) throw new WrennError("idempotency_conflict");
    return use.sandboxId;
  }

  async #outcomeOf(id: SandboxId, keyed: KeyedRequest): Promise<NamedSandboxRow> {
    this.#log.info({ sandboxId: id, teamId: keyed.teamId }, "a sandbox was asked for again");
    const row = await this.#settled(id);
    if (row === null) {
      throw new WrennError("sandbox_busy", { message: "The create with this Idempotency-Key is still under way." });
    }
    const use = await findKeyUse(this.#store, keyed);
    // Who has waited for a create learns how it failed as the one that began it does. The next request tries anew.
    if (use?.sandboxId === id && use.failure !== null) {
      const { code, message } = use.failure;
      throw new WrennError(isErrorCode(code) ? code : "internal", { message });
    }
    return row;
  }

  async #settled(id: SandboxId): Promise<NamedSandboxRow | null> {
    const known = this.#settling.get(id);
    if (known !== undefined) return known;
    const settling = pollUntil(async () => this.#findSettled(id), {
      timeoutMs: deadlines.createSandbox,
      intervalMs: settlePollMs,
    });
    this.#settling.set(id, settling);
    try {
      return await settling;
    } finally {
      this.#settling.delete(id);
    }
  }

  async #findSettled(id: SandboxId): Promise<NamedSandboxRow | null> {
    const row = await findSandbox(this.#store, id);
    if (row === null) throw new WrennError("sandbox_not_found");
    return row.status === "pending" || row.status === "starting" ? null : row;
  }
}
