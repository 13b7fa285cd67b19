import { Buffer } from "node:buffer";
import fc from "fast-check";
import { expect, test } from "vitest";
import { CapturedOutput } from "./captured-output.ts";
import type { Captured } from "./captured-output.ts";

function capture(maxBytes: number, ...pieces: Uint8Array[]): Captured {
  const output = new CapturedOutput(maxBytes);
  for (const piece of pieces) output.push(piece);
  return output.result();
}

test("any bytes come back the same, however they arrive", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 40 })), (pieces) => {
      const whole = Buffer.concat(pieces);
      const { text, encoding, bytes, truncated } = capture(10_000, ...pieces);
      expect(Buffer.from(text, encoding).equals(whole)).toBe(true);
      expect([bytes, truncated]).toEqual([whole.length, false]);
    }),
  );
});

test("text that is cut anywhere stays text, and loses no more than the character that was cut", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary", maxLength: 60 }), fc.nat(120), (text, maxBytes) => {
      const whole = Buffer.from(text);
      const captured = capture(maxBytes, whole);
      expect(captured.encoding).toBe("utf-8");
      expect(text.startsWith(captured.text)).toBe(true);
      const kept = Buffer.byteLength(captured.text);
      expect(kept).toBeLessThanOrEqual(maxBytes);
      expect(kept).toBeGreaterThan(Math.min(maxBytes, whole.length) - 4);
      expect(captured.bytes).toBe(whole.length);
      expect(captured.truncated).toBe(whole.length > maxBytes);
    }),
  );
});

test("bytes that are cut are kept up to the last one that is allowed", () => {
  const bytes = Uint8Array.from({ length: 1_000 }, (_, at) => 255 - (at % 128));
  const captured = capture(700, bytes.subarray(0, 333), bytes.subarray(333));
  expect(captured).toMatchObject({ encoding: "base64", bytes: 1_000, truncated: true });
  expect(Buffer.from(captured.text, "base64").equals(bytes.subarray(0, 700))).toBe(true);
});

test("nothing is kept where nothing is wanted", () => {
  expect(capture(0, Buffer.from("abc"))).toEqual({ text: "", encoding: "utf-8", bytes: 3, truncated: true });
});
