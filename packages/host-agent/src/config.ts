/** What the operator chooses for a host agent, by environment variables. Everything has a default. */
import { isIP } from "node:net";
import path from "node:path";
import { generationLimits, WrennError } from "@wrenn/contract";
import { defaultWrennDir, type LogLevel, logLevels } from "@wrenn/system";
import { z } from "zod";
import { type DiskChoice, diskChoices } from "./disks/choice.ts";
import { engineChoices } from "./engines/choose.ts";
import { type MemoryChoice, memoryChoices } from "./sandboxes/open-memory.ts";

/** Resolvers that anyone may use, of two operators. A host's own may lie in a range that sandboxes cannot reach. */
const publicResolvers = "1.1.1.1,8.8.8.8";

const environmentSchema = z.object({
  WRENN_DIR: z.string().default(defaultWrennDir),
  WRENN_SLOT_CIDR: z.string().optional(),
  WRENN_SLOT_POOL: z.coerce.number().int().min(0).max(256).default(4),
  WRENN_ENGINE: z.enum(engineChoices).default("auto"),
  WRENN_DISKS: z.enum(diskChoices).default("auto"),
  WRENN_MEMORY: z.enum(memoryChoices).default("auto"),
  WRENN_WARM_START: z.enum(["on", "off"]).default("on"),
  WRENN_GOLDEN_BYTES: z.coerce.number().int().min(0).default(generationLimits.goldenBytes),
  WRENN_MEMORY_OVERCOMMIT: z.coerce.number().min(1).max(100).default(1),
  WRENN_QEMU_BIN: z.string().min(1).optional(),
  WRENN_FIRECRACKER_BIN: z.string().min(1).optional(),
  WRENN_JAILER_BIN: z.string().min(1).optional(),
  WRENN_DNS: z
    .string()
    .default(publicResolvers)
    .transform((text) => text.split(",").map((part) => part.trim()))
    .refine(
      (addresses) => addresses.every((address) => isIP(address) !== 0),
      "must be IP addresses, separated by commas",
    ),
  WRENN_LOG_LEVEL: z.enum(logLevels).default("info"),
});

export interface HostAgentConfig {
  readonly wrennDir: string;
  /** The range that slots take their addresses from; undefined for the one that suits this WRENN_DIR. */
  readonly slotCidr: string | undefined;
  readonly slotPoolSize: number;
  readonly engine: (typeof engineChoices)[number];
  /** Which format the disks of new sandboxes have. */
  readonly disks: DiskChoice;
  /** How frozen memory comes back. */
  readonly memory: MemoryChoice;
  /** Whether the golden snapshot of default sandboxes is made before the host agent listens. */
  readonly warmStart: boolean;
  /** What golden snapshots may take up of the disk. */
  readonly goldenBytes: number;
  /** How many times its memory this host promises to sandboxes. */
  readonly memoryOvercommit: number;
  /** Paths of engines' programs; undefined for those on PATH. */
  readonly programs: Readonly<Record<"qemu" | "firecracker" | "jailer", string | undefined>>;
  readonly dns: readonly string[];
  readonly logLevel: LogLevel;
}

/** @throws WrennError `setup_failed` naming each variable that is wrong */
export function configFromEnvironment(environment: NodeJS.ProcessEnv): HostAgentConfig {
  const parsed = environmentSchema.safeParse(environment);
  if (!parsed.success) {
    const problems = parsed.error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`);
    throw new WrennError("setup_failed", { message: `The environment is not valid. ${problems.join("; ")}` });
  }
  const env = parsed.data;
  return {
    wrennDir: path.resolve(env.WRENN_DIR),
    slotCidr: env.WRENN_SLOT_CIDR,
    slotPoolSize: env.WRENN_SLOT_POOL,
    engine: env.WRENN_ENGINE,
    disks: env.WRENN_DISKS,
    memory: env.WRENN_MEMORY,
    warmStart: env.WRENN_WARM_START === "on",
    goldenBytes: env.WRENN_GOLDEN_BYTES,
    memoryOvercommit: env.WRENN_MEMORY_OVERCOMMIT,
    programs: {
      qemu: env.WRENN_QEMU_BIN,
      firecracker: env.WRENN_FIRECRACKER_BIN,
      jailer: env.WRENN_JAILER_BIN,
    },
    dns: env.WRENN_DNS,
    logLevel: env.WRENN_LOG_LEVEL,
  };
}
