import { describe, expect, it } from "vitest";
import { apiKeySecret, formatApiKey } from "./api-keys.ts";

const secret = "0123456789abcdef0123456789abcdef01234567";

describe("API keys", () => {
  it("are the same key behind wrn_ and e2b_", () => {
    expect(apiKeySecret(formatApiKey(secret))).toBe(secret);
    expect(apiKeySecret(`e2b_${secret}`)).toBe(secret);
  });

  it.each(["", "wrn_", secret, `wrn_${secret}0`, `wrn_${secret.toUpperCase()}`, `xyz_${secret}`, ` wrn_${secret}`])(
    "are not %j",
    (text) => {
      expect(apiKeySecret(text)).toBeNull();
    },
  );
});
