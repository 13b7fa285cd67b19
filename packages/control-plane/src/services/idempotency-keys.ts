/**
 * What is kept of requests with an Idempotency-Key, so that a repeated one is known again and a database that is stolen tells
 * nothing: two hashes. Requests carry environments, and those secrets, some of them easy to guess. So a request is hashed under a
 * key that is derived from a secret of the platform and from the Idempotency-Key, which is kept nowhere: whoever has all of the
 * database, that secret included, still cannot try guesses without the caller's key.
 */
import { createHmac } from "node:crypto";
import type { CreateSandbox, TeamId } from "@wrenn/contract";
import type { Store } from "../store/database.ts";
import type { KeyedRequest } from "../store/idempotency-keys.ts";
import { ensurePlatformSecret } from "../store/platform-secrets.ts";

export class IdempotencyKeys {
  readonly #secret: Buffer;

  private constructor(secret: Buffer) {
    this.#secret = secret;
  }

  static async open(store: Store): Promise<IdempotencyKeys> {
    return new IdempotencyKeys(await ensurePlatformSecret(store, "idempotency_keys"));
  }

  /** `request` is the body as it was understood: what it leaves out and what it says as the default are the same. */
  hash(teamId: TeamId, key: string, request: CreateSandbox): KeyedRequest {
    const keyHash = hmac(this.#secret, `key ${teamId} ${key}`);
    const requestHash = hmac(hmac(this.#secret, `request ${teamId} ${key}`), canonicalJson(request));
    return { teamId, keyHash, requestHash };
  }
}

function hmac(key: Buffer, text: string): Buffer {
  return createHmac("sha256", key).update(text).digest();
}

/** The same text for the same content, in whatever order its fields came. */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, part: unknown) =>
    typeof part === "object" && part !== null && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : part,
  );
}
