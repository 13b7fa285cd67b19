/** What of the host's environment reaches a command in the lab. */
import { realpath } from "node:fs/promises";
import path from "node:path";
import { repositoryRoot } from "@wrenn/cli";
import { WrennError } from "@wrenn/contract";
import type { Layout } from "@wrenn/system";
import type { Inset } from "./shares.ts";

/** Variables that name programs of the host, which the VM is given under the same variable. */
const programVariables = ["WRENN_FIRECRACKER_BIN", "WRENN_JAILER_BIN"] as const;

const alwaysPassed = /^(WRENN_\w+|VITEST\w*|CI|FORCE_COLOR|NO_COLOR)$/;

export interface GuestPrograms {
  /** What the disk with installed files shows besides. */
  readonly insets: readonly Inset[];
  readonly env: Readonly<Record<string, string>>;
}

/** @param mountPoint where the VM has that disk */
export async function guestPrograms(env: NodeJS.ProcessEnv, mountPoint: string): Promise<GuestPrograms> {
  const insets: Inset[] = [];
  const variables: Record<string, string> = {};
  for (const variable of programVariables) {
    const program = env[variable];
    if (program === undefined || program === "") continue;
    const at = path.join("programs", variable, path.basename(program));
    insets.push({ from: await existing(variable, program), at });
    variables[variable] = path.join(mountPoint, at);
  }
  return { insets, env: variables };
}

async function existing(variable: string, program: string): Promise<string> {
  try {
    return await realpath(program);
  } catch (cause) {
    throw new WrennError("dependency_missing", { message: `${variable} names ${program}, which is not there.`, cause });
  }
}

export function environmentOf(
  env: NodeJS.ProcessEnv,
  names: readonly string[],
  layout: Layout,
  programs: GuestPrograms,
): Record<string, string> {
  const passed = Object.entries(env).flatMap(([name, value]): [string, string][] => {
    return value !== undefined && (alwaysPassed.test(name) || names.includes(name)) ? [[name, value]] : [];
  });
  return {
    HOME: "/root",
    LANG: "C.UTF-8",
    PATH: `${repositoryRoot}/node_modules/.bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
    ...Object.fromEntries(passed),
    WRENN_DIR: layout.root,
    WRENN_LAB: "1",
    ...programs.env,
  };
}
