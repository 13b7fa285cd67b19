/** For tests: what a guest must have in its memory and on its disk, changed step by step with the guest itself. */
import { createHash } from "node:crypto";
import { Ballast, type BallastOrder, type RunInGuest, startBallast } from "../../testing/ballast.ts";

const directory = "/root/model";

export class ModelledGuest {
  readonly #ballast: Ballast;
  readonly #files: Map<string, Buffer>;

  constructor(ballast = new Ballast(), files = new Map<string, Buffer>()) {
    this.#ballast = ballast;
    this.#files = files;
  }

  /** In a guest that is new. */
  static async begin(run: RunInGuest): Promise<ModelledGuest> {
    await run(`mkdir ${directory}`);
    await startBallast(run);
    return new ModelledGuest();
  }

  copy(): ModelledGuest {
    return new ModelledGuest(this.#ballast.copy(), new Map(this.#files));
  }

  async remember(run: RunInGuest, order: BallastOrder): Promise<void> {
    await this.#ballast.order(run, order);
  }

  /** A file of that many bytes, or as many more at its end. */
  async write(run: RunInGuest, name: string, seed: number, bytes: number, isAppended: boolean): Promise<void> {
    await run(`yes ${seed} | head -c ${bytes} ${isAppended ? ">>" : ">"} ${directory}/${name}`);
    const added = Buffer.alloc(bytes, `${seed}\n`);
    const before = isAppended ? (this.#files.get(name) ?? Buffer.alloc(0)) : Buffer.alloc(0);
    this.#files.set(name, Buffer.concat([before, added]));
  }

  async remove(run: RunInGuest, name: string): Promise<void> {
    await run(`rm -f ${directory}/${name}`);
    this.#files.delete(name);
  }

  /** The guest forgets what it has read, so that the next check sees what the disk has. */
  async rereadDisk(run: RunInGuest): Promise<void> {
    await run("sync; echo 3 > /proc/sys/vm/drop_caches");
  }

  /** What is not as it must be, a line each: nothing, if all is well. */
  async flaws(run: RunInGuest): Promise<string[]> {
    const blocks = await this.#ballast.wrongBlocks(run);
    const listed = await run(`cd ${directory} && for file in *; do [ -e "$file" ] && md5sum "$file"; done`);
    const found = new Map(
      listed.split("\n").flatMap((line): [string, string][] => {
        const [sum = "", name = ""] = line.split("  ");
        return name === "" ? [] : [[name, sum]];
      }),
    );
    const names = [...new Set([...found.keys(), ...this.#files.keys()])];
    const files = names.filter((name) => found.get(name) !== this.#sumOf(name));
    return [...blocks.map((block) => `memory block ${block}`), ...files.map((name) => `file ${name}`)];
  }

  #sumOf(name: string): string | undefined {
    const content = this.#files.get(name);
    return content === undefined ? undefined : createHash("md5").update(content).digest("hex");
  }
}
