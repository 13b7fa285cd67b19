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
