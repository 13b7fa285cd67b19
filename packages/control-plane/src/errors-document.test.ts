/** docs/errors.md is the registry as a page. Run with UPDATE_DOCS=1 to write it anew after the registry changed. */
import { readFile, writeFile } from "node:fs/promises";
import { errorRegistry } from "@wrenn/contract";
import { expect, test } from "vitest";

const document = new URL("../../../docs/errors.md", import.meta.url);

function render(): string {
  const rows = Object.entries(errorRegistry)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([code, { status, retryable, message, suggestion }]) =>
      [`\`${code}\``, status, retryable ? "yes" : "no", message, suggestion].join(" | "),
    );
  return `# Errors

Every failure of the API, the command line and the parts between has a code of this list. Codes and statuses do not change
their meaning once released. The API answers

\`\`\`json
{"error": {"code": "…", "message": "…", "details": {}, "suggestion": "…", "request_id": "…"}}
\`\`\`

with the status below; \`message\` may say more than here, and \`details\` is there only where there are any. For requests
into a sandbox, the header \`Wrenn-Error\` with the code tells an error of Wrenn from an answer of the sandbox. A retryable
error may not happen again when the same request is repeated later.

| code | status | retryable | what happened | what to do |
|---|---|---|---|---|
${rows.map((row) => `| ${row} |`).join("\n")}
`;
}

test("docs/errors.md is what the registry says", async () => {
  if (process.env["UPDATE_DOCS"] === "1") await writeFile(document, render());
  expect(await readFile(document, "utf8")).toBe(render());
});
