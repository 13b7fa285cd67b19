/** What a sandbox's guest agent demands as X-Access-Token: derived, so that no table of tokens exists to be stolen. */
import { createHmac, timingSafeEqual } from "node:crypto";
import type { SandboxId } from "@wrenn/contract";
import type { Store } from "../store/database.ts";
import { ensurePlatformSecret } from "../store/platform-secrets.ts";

export class AccessTokens {
  readonly #secret: Buffer;
  /** Deriving takes some microseconds, which each call of the data plane would pay. */
  readonly #derived = new Map<SandboxId, string>();

  private constructor(secret: Buffer) {
    this.#secret = secret;
  }

  static async open(store: Store): Promise<AccessTokens> {
    return new AccessTokens(await ensurePlatformSecret(store, "sandbox_access_tokens"));
  }

  /** HMAC-SHA256 of the sandbox's UUID, as 64 hex digits. */
  of(id: SandboxId): string {
    const known = this.#derived.get(id);
    if (known !== undefined) return known;
    const token = createHmac("sha256", this.#secret).update(id).digest("hex");
    if (this.#derived.size >= 10_000) this.#derived.clear();
    this.#derived.set(id, token);
    return token;
  }

  /** Compares in constant time. */
  matches(id: SandboxId, presented: string): boolean {
    const expected = Buffer.from(this.of(id));
    const given = Buffer.from(presented);
    return given.length === expected.length && timingSafeEqual(given, expected);
  }
}
