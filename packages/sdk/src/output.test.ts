import { describe, expect, it } from "vitest";
import { CollectedOutput, decodeText, listenWith } from "./output.ts";

const text = "añ→😀e\u0301\uFEFF.";
const bytes = new TextEncoder().encode(text);

describe("text handed to a listener", () => {
  it.each(Array.from(bytes, (_byte, at) => at))("is not torn when its bytes are split at %i", async (at) => {
    const seen: string[] = [];
    const raw: number[] = [];
    const listener = listenWith({
      onStdout: (piece, decoded) => {
        raw.push(...piece);
        seen.push(decoded);
      },
    });
    await listener.deliver("stdout", bytes.subarray(0, at));
    await listener.deliver("stderr", bytes);
    await listener.deliver("stdout", bytes.subarray(at));
    await listener.finish();
    expect(seen.join("")).toBe(text);
    expect(raw).toEqual([...bytes]);
    expect(seen.join("")).not.toContain("\uFFFD");
  });

  it("ends with what was left of a character", async () => {
    const seen: [number, string][] = [];
    const listener = listenWith({ onStderr: (piece, decoded) => void seen.push([piece.byteLength, decoded]) });
    await listener.deliver("stderr", bytes.subarray(0, 2));
    await listener.finish();
    expect(seen).toEqual([
      [2, "a"],
      [0, "\uFFFD"],
    ]);
  });
});

describe("collected output", () => {
  it("is kept up to a bound, and says that there was more", () => {
    const output = new CollectedOutput(4);
    output.add(new Uint8Array([1, 2, 3]));
    expect(output.truncated).toBe(false);
    output.add(new Uint8Array([4, 5, 6]));
    output.add(new Uint8Array([7]));
    expect([...output.bytes()]).toEqual([1, 2, 3, 4]);
    expect(output.truncated).toBe(true);
  });

  it("as text is what the bytes are, a byte order mark included", () => {
    expect(decodeText(new TextEncoder().encode("\uFEFFa"))).toBe("\uFEFFa");
    expect(decodeText(new Uint8Array([0xff]))).toBe("\uFFFD");
  });
});
