import { expect, it } from "vitest";
import { formatTable } from "./table.ts";

it("aligns columns, and leaves no blanks at the end of a line", () => {
  const table = formatTable(
    ["ID", "STATUS"],
    [
      ["sb-1", "running"],
      ["sb-22", ""],
    ],
  );
  expect(table).toBe("ID     STATUS\nsb-1   running\nsb-22");
});

it("shows cells in its own way once they are aligned", () => {
  const loud = { text: "up", show: (padded: string) => `*${padded}*` };
  expect(formatTable(["STATUS", "AGE"], [[loud, "1 s"]])).toBe("STATUS  AGE\n*up    *  1 s");
});

it("has one line for each row, whatever is in it", () => {
  expect(formatTable(["COMMAND"], [["sh -c 'a\nb'\u001B[2J"]])).toBe("COMMAND\nsh -c 'a\\u000ab'\\u001b[2J");
});
