/** `npm run lab -- [OPTIONS] COMMAND [ARGUMENTS]`: options come before the command; what follows it is the command's own. */
import path from "node:path";
import { parseArgs } from "node:util";

export interface LabOptions {
  readonly command: readonly [string, ...string[]];
  readonly deadlineMs: number;
  /** null: as many as are safe with the accelerator. */
  readonly vcpus: number | null;
  readonly memoryMib: number;
  readonly accelerator: "auto" | "kvm" | "tcg";
  readonly scratch: "xfs" | "ext4";
  readonly scratchGib: number;
  /** Absolute, the same on the host and in the VM; null when nothing is brought back. */
  readonly results: string | null;
  /** Names of variables that the command gets besides the usual ones. */
  readonly environment: readonly string[];
}

export const labUsage = `Usage: npm run lab -- [OPTIONS] COMMAND [ARGUMENTS]

Runs a command as root in a VM that has KVM, device-mapper and all of the distribution's kernel, with this project as it is now.
It ends with the command's exit code; 124 when the deadline passed, 125 when the lab itself failed.

  --deadline SECONDS   then the command is ended (1800)
  --results FOLDER     empty in the VM, at the same path; what the command leaves there is brought back
  --env NAME           a variable that the command gets too; may be given several times. WRENN_*, VITEST*, CI, FORCE_COLOR and NO_COLOR
                       are always passed on
  --scratch xfs|ext4   file system of /tmp, /var/tmp and WRENN_DIR (xfs, which shares blocks)
  --scratch-gib GIB    its size; it is sparse (24)
  --memory MIB         memory of the VM (3584)
  --vcpus N            its processors (2 with KVM, else 1)
  --accel auto|kvm|tcg KVM, where it works on this machine and can be nested, or software emulation (auto)
`;

const flags = {
  deadline: { type: "string", default: "1800" },
  results: { type: "string" },
  env: { type: "string", multiple: true },
  scratch: { type: "string", default: "xfs" },
  "scratch-gib": { type: "string", default: "24" },
  memory: { type: "string", default: "3584" },
  vcpus: { type: "string" },
  accel: { type: "string", default: "auto" },
  help: { type: "boolean", default: false },
} as const;

/**
 * What was asked for, or null when it is help.
 * @param folder what relative paths are relative to
 * @throws Error that says what is wrong
 */
export function parseLabOptions(argv: readonly string[], folder: string): LabOptions | null {
  const begin = commandBegin(argv);
  const { values } = parseArgs({ args: argv.slice(0, begin), options: flags });
  if (values.help) return null;
  const [program, ...args] = argv.slice(argv[begin] === "--" ? begin + 1 : begin);
  if (program === undefined) throw new Error("There is no command to run.");
  return {
    command: [program, ...args],
    deadlineMs: number("deadline", values.deadline) * 1_000,
    vcpus: values.vcpus === undefined ? null : number("vcpus", values.vcpus),
    memoryMib: number("memory", values.memory),
    accelerator: oneOf("accel", values.accel, ["auto", "kvm", "tcg"] as const),
    scratch: oneOf("scratch", values.scratch, ["xfs", "ext4"] as const),
    scratchGib: number("scratch-gib", values["scratch-gib"]),
    results: values.results === undefined ? null : path.resolve(folder, values.results),
    environment: values.env ?? [],
  };
}

/** Where the options end: at `--`, or at the first word that neither is one nor belongs to one. */
function commandBegin(argv: readonly string[]): number {
  let at = 0;
  for (;;) {
    const word = argv[at];
    if (word === undefined || word === "--" || !word.startsWith("-")) return at;
    at += word === "--help" || word.includes("=") ? 1 : 2;
  }
}

function number(flag: string, text: string): number {
  if (/^[1-9]\d{0,6}$/.test(text)) return Number(text);
  throw new Error(`--${flag} takes a positive number, not ${JSON.stringify(text)}.`);
}

function oneOf<Choice extends string>(flag: string, text: string, choices: readonly Choice[]): Choice {
  const choice = choices.find((candidate) => candidate === text);
  if (choice !== undefined) return choice;
  throw new Error(`--${flag} takes ${choices.join(" or ")}, not ${JSON.stringify(text)}.`);
}
