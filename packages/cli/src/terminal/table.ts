/** Rows in aligned columns. */
import { printable } from "./text.ts";

/** A cell as it is, or with how it is to be shown once it is as wide as its column. */
export type Cell = string | { readonly text: string; readonly show: (padded: string) => string };

/** Whatever the cells came from, each row is one line. */
export function formatTable(header: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const lines = [header, ...rows].map((cells) => cells.map(shown));
  const widths = header.map((_title, column) => Math.max(...lines.map((cells) => cells[column]?.text.length ?? 0)));
  return lines.map((cells) => formatLine(cells, widths)).join("\n");
}

function shown(cell: Cell): Exclude<Cell, string> {
  const { text, show } = typeof cell === "string" ? { text: cell, show: (padded: string) => padded } : cell;
  return { text: printable(text), show };
}

/** Without blanks at its end. */
function formatLine(cells: readonly Exclude<Cell, string>[], widths: readonly number[]): string {
  const last = cells.findLastIndex(({ text }) => text !== "");
  return cells
    .slice(0, last + 1)
    .map(({ text, show }, column) => show(column === last ? text : text.padEnd(widths[column] ?? 0)))
    .join("  ");
}
