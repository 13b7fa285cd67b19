/**
 * What a host agent must not forget about a sandbox, whatever happens to it: written durably before every step that would otherwise
 * leave something nobody knows of. Holds no secrets.
 */
import { readdir } from "node:fs/promises";
import { type ErrorCode, isErrorCode, parseUuid, type SandboxId, type TeamId, type TemplateId } from "@wrenn/contract";
import { isMissingFile, type Layout, processIdentitySchema, readJson, writeJsonDurably } from "@wrenn/system";
import { z } from "zod";
import { engineKinds, type VmEnd } from "../engines/engine.ts";

const uuidSchema = z.uuid();
const sandboxIdSchema = uuidSchema.transform((text) => parseUuid("sandbox", text));
const teamIdSchema = uuidSchema.transform((text): TeamId => parseUuid("team", text));
const templateIdSchema = uuidSchema.transform((text): TemplateId => parseUuid("template", text));
const errorCodeSchema = z.string().transform((code): ErrorCode => (isErrorCode(code) ? code : "internal"));

const common = {
  version: z.literal(1),
  sandboxId: sandboxIdSchema,
  teamId: teamIdSchema,
  template: z.object({ teamId: teamIdSchema, templateId: templateIdSchema }),
  vcpus: z.number().int().positive(),
  memoryMib: z.number().int().positive(),
  diskMib: z.number().int().positive(),
  engine: z.enum(engineKinds),
  createdAt: z.iso.datetime(),
};

/** What must be freed: null for what has not been taken yet, or is freed already. */
const held = { slot: z.number().int().nullable(), process: processIdentitySchema.nullable() };

const stepsSchema = z.array(z.object({ step: z.string(), milliseconds: z.number() }));

const deathSchema = z.object({
  code: errorCodeSchema,
  message: z.string(),
  at: z.iso.datetime(),
  consoleTail: z.string(),
});
export type Death = z.infer<typeof deathSchema>;

export const journalSchema = z.discriminatedUnion("state", [
  z.object({ ...common, ...held, state: z.literal("creating") }),
  z.object({
    ...common,
    state: z.literal("running"),
    slot: z.number().int(),
    process: processIdentitySchema,
    steps: stepsSchema,
  }),
  z.object({ ...common, ...held, state: z.literal("destroying") }),
  /** The VM is gone. Until it is destroyed, it tells why. */
  z.object({ ...common, ...held, state: z.literal("dead"), steps: stepsSchema, death: deathSchema }),
]);
export type Journal = z.infer<typeof journalSchema>;
export type RunningJournal = Extract<Journal, { state: "running" }>;
export type DeadJournal = Extract<Journal, { state: "dead" }>;

/** The part of a journal that never changes. */
export type SandboxFacts = Pick<
  Journal,
  "version" | "sandboxId" | "teamId" | "template" | "vcpus" | "memoryMib" | "diskMib" | "engine" | "createdAt"
>;

export function factsOf(journal: Journal): SandboxFacts {
  const { version, sandboxId, teamId, template, vcpus, memoryMib, diskMib, engine, createdAt } = journal;
  return { version, sandboxId, teamId, template, vcpus, memoryMib, diskMib, engine, createdAt };
}

/** The journal of a sandbox whose VM has ended. */
export function deadJournal(
  journal: RunningJournal,
  end: VmEnd,
  held: Pick<DeadJournal, "slot" | "process">,
): DeadJournal {
  const { code, message, consoleTail } = end;
  return {
    ...factsOf(journal),
    state: "dead",
    ...held,
    steps: journal.steps,
    death: { code, message, consoleTail, at: end.at.toISOString() },
  };
}

export async function writeJournal(layout: Layout, journal: Journal): Promise<void> {
  await writeJsonDurably(layout.sandbox(journal.sandboxId).journal, journal);
}

/** What an earlier host agent left: sandboxes with a journal, and directories whose journal is missing or unreadable. */
export interface JournalInventory {
  readonly journals: Journal[];
  readonly unreadable: SandboxId[];
  /** Names in the directory of sandboxes that are not even an id. */
  readonly foreign: string[];
}

export async function readJournals(layout: Layout): Promise<JournalInventory> {
  const inventory: JournalInventory = { journals: [], unreadable: [], foreign: [] };
  for (const name of await directoryNames(layout.sandboxes)) {
    const id = sandboxIdSchema.safeParse(name);
    if (!id.success) {
      inventory.foreign.push(name);
      continue;
    }
    const journal = journalSchema.safeParse(await readJournalFile(layout.sandbox(id.data).journal));
    if (journal.success && journal.data.sandboxId === id.data) inventory.journals.push(journal.data);
    else inventory.unreadable.push(id.data);
  }
  return inventory;
}

async function readJournalFile(file: string): Promise<unknown> {
  try {
    return await readJson(file);
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

async function directoryNames(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (isMissingFile(error)) return [];
    throw error;
  }
}
