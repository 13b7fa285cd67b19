/** Bytes that callers hand in, whatever they come as. */

/** Text is sent as UTF-8. A stream is read once, as fast as it is taken. */
export type BodySource = string | Uint8Array | Blob | ReadableStream<Uint8Array>;

export function isStream(source: BodySource): source is ReadableStream<Uint8Array> {
  return typeof source === "object" && "getReader" in source;
}

export function blobOf(source: Exclude<BodySource, ReadableStream>): Blob {
  if (source instanceof Blob) return source;
  // A view of shared memory, which no blob takes, is copied.
  const shared = typeof source !== "string" && !(source.buffer instanceof ArrayBuffer);
  return new Blob([shared ? source.slice() : source]);
}

export function streamOf(source: BodySource): ReadableStream<Uint8Array> {
  return isStream(source) ? source : blobOf(source).stream();
}

/** Whether `fetch` takes a stream as a body. Browsers do so over HTTP/2 only, and cannot be asked which it will be. */
export const sendsStreams = !("document" in globalThis || "WorkerGlobalScope" in globalThis);

export function encodeText(input: Uint8Array | string): Uint8Array {
  return typeof input === "string" ? new TextEncoder().encode(input) : input;
}
