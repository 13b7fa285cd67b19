import { expect, it } from "vitest";
import { leavableInput, terminalEnvironment } from "./terminal.ts";

function typed() {
  const seen: string[] = [];
  let left = false;
  const sink = leavableInput(
    { write: (bytes) => Promise.resolve(void seen.push(Buffer.from(bytes).toString())) },
    () => (left = true),
  );
  const type = (keys: string): Promise<void> => sink.write(Buffer.from(keys));
  return { type, seen: () => seen.join(""), left: () => left };
}

it("Ctrl-] twice in a row leaves, in one piece or in two", async () => {
  const fast = typed();
  await fast.type("ls\u001D\u001Drm");
  expect(fast).toSatisfy(({ left }: typeof fast) => left());
  const slow = typed();
  await slow.type("ls\u001D");
  expect(slow.left()).toBe(false);
  await slow.type("\u001D");
  expect(slow.left()).toBe(true);
  expect(slow.seen()).toBe("ls");
});

it("Ctrl-] before another key is the program's", async () => {
  const { type, seen, left } = typed();
  await type("a\u001D");
  await type("b\u001Dc");
  expect(seen()).toBe("a\u001Db\u001Dc");
  expect(left()).toBe(false);
});

it("every other byte is the program's", async () => {
  const all = Uint8Array.from({ length: 256 }, (_, byte) => byte);
  const seen: number[] = [];
  const sink = leavableInput({ write: (bytes) => Promise.resolve(void seen.push(...bytes)) }, () => undefined);
  await sink.write(all);
  expect(seen).toEqual([...all]);
});

it("a terminal in a sandbox learns what ours is", () => {
  expect(terminalEnvironment({ TERM: "xterm-256color", COLORTERM: "", HOME: "/root" })).toEqual({
    TERM: "xterm-256color",
  });
});
