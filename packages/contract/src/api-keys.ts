/** The form of an API key: `wrn_` and 40 hex digits. The same digits behind `e2b_` are the same key. */

const keyPattern = /^(?:wrn|e2b)_([0-9a-f]{40})$/;

/** The 40 digits of a key, which are what is hashed and stored; null when the text is no key. */
export function apiKeySecret(key: string): string | null {
  return keyPattern.exec(key)?.[1] ?? null;
}

export function formatApiKey(secret: string): string {
  return `wrn_${secret}`;
}
