/** What the metrics of API and data plane have in common. */

/** Seconds: from a remembered answer to a create that boots twice. */
export const durationBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 150];

/** `2xx` and so on; `aborted` where the client had gone before its answer was complete. */
export function statusClass(status: number | null): string {
  return status === null ? "aborted" : `${Math.floor(status / 100)}xx`;
}
