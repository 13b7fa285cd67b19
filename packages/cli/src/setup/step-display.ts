/** What people see of a step: one live line on a terminal, a few plain lines anywhere else. */
import { stripVTControlCharacters } from "node:util";
import { formatSeconds } from "../units.ts";

/** Where it is shown; `process.stderr` is one. */
export interface SetupOutput {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

const redrawMs = 100;
/** Without a terminal, a sign of life this often. */
const plainIntervalMs = 15_000;
const frames = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
const defaultColumns = 80;

export class StepDisplay {
  readonly #output: SetupOutput;
  readonly #title: string;
  readonly #started = performance.now();
  readonly #timer: NodeJS.Timeout;
  #lastLine = "";
  #frame = 0;

  /** @param title for instance `[3/6] Building the root filesystem` */
  constructor(output: SetupOutput, title: string, expectedSeconds: number) {
    this.#output = output;
    this.#title = title;
    const heading = `${title} (about ${expectedSeconds} s)`;
    if (output.isTTY === true) {
      this.#title = heading;
      this.#draw();
      this.#timer = setInterval(() => {
        this.#draw();
      }, redrawMs);
    } else {
      output.write(`${heading}\n`);
      this.#timer = setInterval(() => {
        output.write(`      ${this.#elapsed()}: ${this.#lastLine}\n`);
      }, plainIntervalMs);
    }
  }

  readonly say = (line: string): void => {
    const readable = stripVTControlCharacters(line).trim();
    if (readable !== "") this.#lastLine = readable;
  };

  succeed(): void {
    this.#end(`${this.#title}: done in ${this.#elapsed()}`, `      done in ${this.#elapsed()}`);
  }

  fail(): void {
    this.#end(`${this.#title}: failed after ${this.#elapsed()}`, `      failed after ${this.#elapsed()}`);
  }

  #end(onTerminal: string, elsewhere: string): void {
    clearInterval(this.#timer);
    this.#output.write(this.#output.isTTY === true ? `\r\u001B[K${onTerminal}\n` : `${elsewhere}\n`);
  }

  #draw(): void {
    const frame = frames[this.#frame++ % frames.length] ?? "";
    const text = `${frame} ${this.#title} ${this.#elapsed()}  ${this.#lastLine}`;
    // A line that wraps could not be drawn over.
    const width = (this.#output.columns ?? defaultColumns) - 1;
    this.#output.write(`\r${text.slice(0, width)}\u001B[K`);
  }

  #elapsed(): string {
    return formatSeconds(performance.now() - this.#started);
  }
}
