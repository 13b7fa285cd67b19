import { expect, test } from "vitest";
import { wholeNumber } from "./whole-number.ts";

const schema = wholeNumber({ min: 1, max: 200 });

test.each([
  ["1", 1],
  ["200", 200],
  ["007", 7],
])("%j in an address is the number %j", (text, number) => {
  expect(schema.parse(text)).toBe(number);
});

test.each(["", " ", " 7", "1e2", "0x10", "1.0", "+1", "-1", "0", "201", "9".repeat(400), "١", ["1"], null, true])(
  "%j in an address is no number",
  (given) => {
    expect(schema.safeParse(given).success).toBe(false);
  },
);
