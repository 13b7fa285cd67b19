/** The API key that a request presents: in `X-API-Key`, or in `Authorization: Bearer`. */

const bearerPattern = /^Bearer +(\S+) *$/i;

/** The key as it was sent; null when none was. */
export function presentedKey(headers: NodeJS.Dict<string | string[]>): string | null {
  const key = headers["x-api-key"];
  if (typeof key === "string" && key !== "") return key;
  const authorization = headers["authorization"];
  return (typeof authorization === "string" ? bearerPattern.exec(authorization)?.[1] : undefined) ?? null;
}
