/** Addresses of the public API. */

export function sandboxPath(id: string, below = ""): string {
  return `/v1/sandboxes/${encodeURIComponent(id)}${below}`;
}

/** Of one snapshot, or of all. */
export function snapshotPath(name?: string): string {
  return name === undefined ? "/v1/snapshots" : `/v1/snapshots/${encodeURIComponent(name)}`;
}
