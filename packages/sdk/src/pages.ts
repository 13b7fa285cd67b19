/** Lists that the server answers page by page. */
import { pageLimits } from "@wrenn/contract";

export interface Page<Item> {
  items: readonly Item[];
  /** What to ask for next; null on the last page. */
  nextCursor: string | null;
}

/**
 * The items of all pages, each page asked for when those before it have been read.
 * @param limit how many items at most
 */
export async function* readPages<Item>(
  limit: number | undefined,
  ask: (query: URLSearchParams) => Promise<Page<Item>>,
): AsyncGenerator<Item, void, undefined> {
  let left = limit ?? Number.POSITIVE_INFINITY;
  let cursor: string | null = null;
  while (left > 0) {
    const query = new URLSearchParams({ limit: String(Math.min(left, pageLimits.max)) });
    if (cursor !== null) query.set("cursor", cursor);
    const page: Page<Item> = await ask(query);
    yield* page.items.slice(0, left);
    left -= page.items.length;
    cursor = page.nextCursor;
    if (cursor === null) return;
  }
}
