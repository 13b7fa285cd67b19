/** For tests: a process in a guest that holds memory, and what that memory must be (`ballast.py`). */
import { readFile } from "node:fs/promises";
import { crc32 } from "node:zlib";

const pageBytes = 4_096;
const pagesPerBlock = 256;

/** What the process holds, in pages: 24 MiB. */
export const ballastPages = 6_144;

export type BallastOrder =
  /** `count` pages, each `stride` after the one before, filled with what no other seed and no other page has. */
  | {
      readonly does: "fill";
      readonly first: number;
      readonly count: number;
      readonly stride: number;
      readonly seed: number;
    }
  /** Zeros written, or the pages given back to the guest's kernel, which is to say the same. */
  | { readonly does: "zero" | "drop"; readonly first: number; readonly count: number };

/** Runs a command in the guest; resolves with its output. */
export type RunInGuest = (command: string) => Promise<string>;

export async function startBallast(run: RunInGuest): Promise<void> {
  const program = await readFile(new URL("ballast.py", import.meta.url), "utf8");
  await run(`cat > /root/ballast.py <<'EOF'\n${program}EOF
setsid python3 /root/ballast.py ${ballastPages} >/root/ballast.log 2>&1 </dev/null &
until [ -p /run/ballast.answers ]; do sleep 0.05; done`);
}

/** The memory that the process must have. */
export class Ballast {
  /** Zero is a page of zeros. */
  readonly #seeds: Uint32Array;

  constructor(seeds: Uint32Array = new Uint32Array(ballastPages)) {
    this.#seeds = seeds;
  }

  copy(): Ballast {
    return new Ballast(this.#seeds.slice());
  }

  async order(run: RunInGuest, order: BallastOrder): Promise<void> {
    const { first, count } = order;
    if (order.does === "fill") {
      const { stride, seed } = order;
      await ask(run, `fill ${first} ${count} ${stride} ${seed}`);
      for (let page = first; page < Math.min(first + count * stride, ballastPages); page += stride) {
        this.#seeds[page] = seed;
      }
    } else {
      const end = Math.min(first + count, ballastPages);
      await ask(run, `${order.does} ${first} ${end - first}`);
      this.#seeds.fill(0, first, end);
    }
  }

  /** Blocks that are not what they must be: none, if all is well. */
  async wrongBlocks(run: RunInGuest): Promise<number[]> {
    const sums = (await ask(run, "sums")).split(" ").map(Number);
    const blocks = Array.from({ length: ballastPages / pagesPerBlock }, (_, block) => block);
    return blocks.filter((block) => sums[block] !== this.#sumOf(block));
  }

  #sumOf(block: number): number {
    const bytes = Buffer.alloc(pagesPerBlock * pageBytes);
    const pattern = Buffer.alloc(8);
    for (let index = 0; index < pagesPerBlock; index++) {
      const page = block * pagesPerBlock + index;
      const seed = this.#seeds[page] ?? 0;
      if (seed === 0) continue;
      pattern.writeUInt32LE(seed, 0);
      pattern.writeUInt32LE(page, 4);
      bytes.fill(pattern, index * pageBytes, (index + 1) * pageBytes);
    }
    return crc32(bytes);
  }
}

async function ask(run: RunInGuest, order: string): Promise<string> {
  const answer = (await run(`echo ${order} > /run/ballast.orders; cat /run/ballast.answers`)).trim();
  if (answer === "") throw new Error(`"${order}" was not answered: ${await run("cat /root/ballast.log")}`);
  return answer;
}
