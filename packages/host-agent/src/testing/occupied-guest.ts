/** For tests: a guest with something to lose, and whether it has lost it. */
import { pollUntil } from "@wrenn/system";
import { execute } from "./guest.ts";

/** Fills memory with what cannot be guessed, leaves a process that counts, and a file on the disk. */
const occupation = [
  "dd if=/dev/urandom of=/dev/shm/random bs=1M count=8 2>/dev/null",
  "sha256sum /dev/shm/random > /root/sum",
  "setsid sh -c 'n=0; while :; do n=$((n+1)); echo $n > /dev/shm/next; mv /dev/shm/next /dev/shm/count; sleep 0.05; done' >/dev/null 2>&1 </dev/null &",
  "while [ ! -s /dev/shm/count ]; do sleep 0.05; done",
].join("\n");

/** Two moments of a guest are told apart by their marks: the same one in memory and on the disk. */
export interface Moment {
  readonly mark: string;
  readonly count: number;
}

export class OccupiedGuest {
  readonly id: string;
  readonly #socket: string;

  private constructor(socket: string, id: string) {
    this.#socket = socket;
    this.id = id;
  }

  static async occupy(socket: string, id: string): Promise<OccupiedGuest> {
    const guest = new OccupiedGuest(socket, id);
    await guest.run(occupation);
    return guest;
  }

  /** A copy of an occupied guest. */
  static known(socket: string, id: string): OccupiedGuest {
    return new OccupiedGuest(socket, id);
  }

  async run(command: string): Promise<string> {
    return execute(this.#socket, this.id, command);
  }

  /** Marks the present moment. */
  async mark(): Promise<Moment> {
    const mark = crypto.randomUUID();
    await this.run(
      `echo ${mark} > /dev/shm/mark; echo ${mark} > /root/mark; head -c 65536 /dev/urandom > /dev/shm/more; sha256sum /dev/shm/more > /root/more; sync`,
    );
    return { mark, count: await this.#count() };
  }

  /**
   * What is lost of it: nothing, if its processes go on from that moment, and memory and disk are of that moment or later. Names what is
   * missing.
   */
  async losses(moment: Moment): Promise<string[]> {
    const seen = await this.run("head /dev/shm/mark /root/mark | grep -v '^$'; sha256sum -c /root/sum /root/more 2>&1");
    const marks = ["==> /dev/shm/mark <==", moment.mark, "==> /root/mark <==", moment.mark];
    const whole = [...marks, "/dev/shm/random: OK", "/dev/shm/more: OK"];
    const lines = seen.trim().split("\n");
    const losses = whole.flatMap((line, index) =>
      lines[index] === line ? [] : [`${whole[index - 1] ?? ""} ${line}: ${lines[index]}`],
    );
    const before = await this.#count();
    if (before < moment.count) losses.push(`counted to ${before} after ${moment.count}`);
    const goesOn = await pollUntil(async () => ((await this.#count()) > before ? true : null), { timeoutMs: 10_000 });
    if (goesOn === null) losses.push(`counts no further than ${before}`);
    return losses;
  }

  async #count(): Promise<number> {
    return Number(await this.run("cat /dev/shm/count"));
  }
}
