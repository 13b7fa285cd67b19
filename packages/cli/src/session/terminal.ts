/** Our terminal, lent to a program in a sandbox, and taken back as it was. */
import { spawnSync } from "node:child_process";
import { terminalLimits } from "@wrenn/contract";
import type { TerminalSize } from "@wrenn/sdk";
import type { InputSink } from "./input.ts";

/** What a terminal in a sandbox is told of ours, so that programs in it draw what ours understands. */
export function terminalEnvironment(env: NodeJS.ProcessEnv = process.env): Record<string, string> {
  const told = ["TERM", "COLORTERM"].flatMap((name) => {
    const value = env[name];
    return value === undefined || value === "" ? [] : [[name, value] as const];
  });
  return Object.fromEntries(told);
}

/** Also a terminal may not know how large it is, which it says as 0. */
export function terminalSize({ isTTY, columns, rows }: NodeJS.WriteStream = process.stdout): TerminalSize {
  const isKnown = isTTY && columns > 0 && rows > 0;
  return isKnown ? { cols: columns, rows } : { cols: terminalLimits.defaultCols, rows: terminalLimits.defaultRows };
}

/**
 * What a program may have switched on and did not come to switch off: the other screen, no cursor, reports of the mouse, of focus
 * and of pasting, keypad and cursor keys of an application, colours. Each is without effect where it is off.
 */
const backToNormal =
  "\u001B[?1049l\u001B[?25h\u001B[?1000l\u001B[?1002l\u001B[?1003l\u001B[?1006l\u001B[?1004l\u001B[?2004l\u001B[?1l\u001B>\u001B[0m";

export interface LentTerminal {
  /** Takes it back. When its program could not do so itself, also undoes what that has switched on. */
  takeBack(options: { programEnded: boolean }): void;
}

/** Makes our terminal the program's: every key is its own, and its size follows ours. */
export function lendTerminal(resized: (size: TerminalSize) => Promise<void>): LentTerminal {
  const { stdin, stdout } = process;
  const resize = (): void => {
    // A resize that is lost is made up for by the next one.
    resized(terminalSize()).catch(() => undefined);
  };
  const setRaw = (raw: boolean): void => {
    if (!stdin.isTTY) return;
    stdin.setRawMode(raw);
    if (raw) leaveOutputAlone();
  };
  // A shell that stopped us has given the terminal its own modes meanwhile.
  const continued = (): void => {
    setRaw(false);
    setRaw(true);
    resize();
  };
  const exiting = (): void => setRaw(false);
  setRaw(true);
  if (stdout.isTTY) stdout.on("resize", resize);
  process.on("SIGCONT", continued);
  // However this process ends, short of SIGKILL.
  process.on("exit", exiting);
  return {
    takeBack: ({ programEnded }) => {
      setRaw(false);
      stdout.off("resize", resize);
      process.off("SIGCONT", continued);
      process.off("exit", exiting);
      if (!programEnded && stdout.isTTY) stdout.write(backToNormal);
    },
  };
}

/**
 * Node's raw mode still has the terminal make CR LF of LF, which programs that draw a screen use to move straight down. What Node
 * restores in the end is what it found in the beginning.
 */
function leaveOutputAlone(): void {
  // Synchronously: the program's first bytes follow. Without stty, most programs look right all the same.
  spawnSync("stty", ["-opost"], { stdio: ["inherit", "ignore", "ignore"] });
}

/** Ctrl-], as with telnet. Pressed twice in a row it leaves; once, and then another key, is that for the program. */
const escapeKey = 0x1d;

/** Input in which pressing Ctrl-] twice means leaving, which is not for the program to see. */
export function leavableInput(sink: InputSink, leave: () => void): InputSink {
  let held = false;
  return {
    ...sink,
    write: async (bytes) => {
      const kept: number[] = [];
      for (const byte of bytes) {
        if (byte === escapeKey && !held) {
          held = true;
          continue;
        }
        if (byte === escapeKey) {
          leave();
          return;
        }
        if (held) kept.push(escapeKey);
        held = false;
        kept.push(byte);
      }
      if (kept.length > 0) await sink.write(Uint8Array.from(kept));
    },
  };
}
