import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Frame, frameKinds, FrameReader } from "./frames.ts";

const letters = Object.keys(frameKinds) as (keyof typeof frameKinds)[];

describe("frames", () => {
  it("are the same whatever pieces they arrive in", () => {
    const frame = fc.record({ letter: fc.constantFrom(...letters), content: fc.uint8Array({ maxLength: 300 }) });
    fc.assert(
      fc.property(fc.array(frame), fc.integer({ min: 1, max: 50 }), (sent, pieceBytes) => {
        const bytes = Buffer.concat(sent.flatMap(({ letter, content }) => [head(letter, content.length), content]));
        const reader = new FrameReader();
        const received: Frame[] = [];
        for (let at = 0; at < bytes.length; at += pieceBytes) {
          received.push(...reader.read(bytes.subarray(at, at + pieceBytes)));
        }
        expect(received).toEqual(
          sent.map(({ letter, content }) => ({ kind: frameKinds[letter], content: Buffer.from(content) })),
        );
      }),
    );
  });

  it("are told from what is none", () => {
    expect(() => new FrameReader().read(Buffer.from("Kernel panic"))).toThrow("no frame: Kernel panic");
  });
});

function head(letter: string, length: number): Buffer {
  const header = Buffer.alloc(5);
  header.write(letter, "latin1");
  header.writeUInt32BE(length, 1);
  return header;
}
