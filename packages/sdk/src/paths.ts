/** Addresses of the public API. */

export function sandboxPath(id: string, below = ""): string {
  return `/v1/sandboxes/${encodeURIComponent(id)}${below}`;
}
