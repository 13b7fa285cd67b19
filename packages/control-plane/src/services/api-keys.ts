/** API keys: made, verified, revoked. A key is compared by its hash's place in an index, so time tells nothing of it. */
import { createHash, randomBytes } from "node:crypto";
import { apiKeySecret, formatApiKey, intervals, WrennError } from "@wrenn/contract";
import type { ApiKeyId, TeamId } from "@wrenn/contract";
import type { Logger } from "pino";
import * as rows from "../store/api-keys.ts";
import type { ApiKeyOwner } from "../store/api-keys.ts";
import { isDatabaseAway } from "../store/database.ts";
import type { Store } from "../store/database.ts";

/** Keys remembered at once; more than that many busy keys cost a query each. */
const maxRemembered = 10_000;

interface Remembered {
  readonly owner: ApiKeyOwner;
  /** When the database last said so. */
  readonly confirmed: number;
  /** Until when it is believed without asking. */
  readonly until: number;
}

export class ApiKeys {
  readonly #store: Store;
  readonly #log: Logger;
  readonly #remembered = new Map<string, Remembered>();
  readonly #touched = new Map<ApiKeyId, number>();

  constructor(store: Store, log: Logger) {
    this.#store = store;
    this.#log = log;
  }

  /**
   * Whose key this is. A revoked key is refused within `intervals.apiKeyCache` by every replica. While the database is
   * away, nothing can be revoked either: keys used shortly before go on being accepted for a while.
   * @throws WrennError `unauthorized` (401), `database_unavailable`
   */
  async verify(key: string): Promise<ApiKeyOwner> {
    const secret = apiKeySecret(key);
    if (secret === null) {
      throw new WrennError("unauthorized", { message: "That is not an API key: expected wrn_ and 40 hex digits." });
    }
    const remembered = this.#remembered.get(secret);
    const now = performance.now();
    if (remembered !== undefined && remembered.until > now) return remembered.owner;
    const until = now + intervals.apiKeyCache;
    try {
      const owner = await rows.findApiKey(this.#store, hashOf(secret));
      if (owner === null) {
        this.#remembered.delete(secret);
        throw new WrennError("unauthorized", { message: "The API key is unknown or revoked." });
      }
      this.#remember(secret, { owner, confirmed: now, until });
      this.#touch(owner.keyId);
      return owner;
    } catch (error) {
      const believed = remembered !== undefined && now - remembered.confirmed < intervals.withoutDatabase;
      if (!believed || !isDatabaseAway(error)) throw error;
      this.#remember(secret, { ...remembered, until });
      return remembered.owner;
    }
  }

  /** The owner of a valid key, else null. */
  async find(key: string): Promise<ApiKeyOwner | null> {
    const secret = apiKeySecret(key);
    return secret === null ? null : rows.findApiKey(this.#store, hashOf(secret));
  }

  /** The only time that the key itself is seen. */
  async create(teamId: TeamId, name: string, store: Store = this.#store): Promise<{ id: ApiKeyId; key: string }> {
    const secret = randomBytes(20).toString("hex");
    const key = formatApiKey(secret);
    const id = await rows.insertApiKey(store, { teamId, name, hash: hashOf(secret), prefix: key.slice(0, 10) });
    return { id, key };
  }

  async revoke(id: ApiKeyId): Promise<void> {
    await rows.revokeApiKey(this.#store, id);
    for (const [secret, { owner }] of this.#remembered) if (owner.keyId === id) this.#remembered.delete(secret);
  }

  #remember(secret: string, remembered: Remembered): void {
    if (this.#remembered.size >= maxRemembered) this.#remembered.clear();
    this.#remembered.set(secret, remembered);
  }

  /** Not awaited by the request: that a key was used is a courtesy, not a condition. */
  #touch(id: ApiKeyId): void {
    const now = performance.now();
    if (now - (this.#touched.get(id) ?? -Infinity) < intervals.apiKeyLastUsed) return;
    if (this.#touched.size >= maxRemembered) this.#touched.clear();
    this.#touched.set(id, now);
    rows.touchApiKey(this.#store, id).catch((error: unknown) => {
      this.#log.warn({ err: error, keyId: id }, "could not record that the key was used");
    });
  }
}

function hashOf(secret: string): Buffer {
  return createHash("sha256").update(secret).digest();
}
