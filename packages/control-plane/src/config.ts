/** What the environment says. */
import { WrennError } from "@wrenn/contract";
import { layoutFromEnvironment, logLevels } from "@wrenn/system";
import type { Layout, LogLevel } from "@wrenn/system";
import { z } from "zod";

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

export interface Config {
  readonly databaseUrl: string;
  readonly layout: Layout;
  readonly listen: ListenAddress;
  /** Where the key of a one-machine server is kept; undefined when this is none. */
  readonly localCredentials: string | undefined;
  readonly logLevel: LogLevel;
  /** Origins of web pages that may use the API, beside the server's own. */
  readonly allowedOrigins: readonly string[];
  /** An operator's decision for one start (docs/decisions/0009): what only hosts have is removed, what only the database has is lost. */
  readonly trustDatabase: boolean;
}

const listenPattern = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+)):(\d{1,5})$/;

const environmentSchema = z.object({
  DATABASE_URL: z.string().regex(/^postgres(ql)?:\/\//, "expected postgres://…"),
  WRENN_LISTEN: z.string().default("127.0.0.1:7070").transform(parseListen),
  WRENN_LOCAL_CREDENTIALS: z.string().min(1).optional(),
  WRENN_LOG_LEVEL: z.enum(logLevels).default("info"),
  WRENN_TRUST_DATABASE: z.enum(["0", "1"]).default("0"),
  WRENN_ALLOWED_ORIGINS: z.string().default("").transform(parseOrigins),
});

/** @throws WrennError `invalid_request`, naming every variable that is wrong; never its value, which may be a secret. */
export function readConfig(env: NodeJS.ProcessEnv): Config {
  const parsed = environmentSchema.safeParse(env);
  if (!parsed.success) {
    const problems = parsed.error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`);
    throw new WrennError("invalid_request", {
      message: `The environment is not right: ${problems.join("; ")}.`,
      suggestion: "Set the variables named in the message.",
    });
  }
  const { data } = parsed;
  return {
    databaseUrl: data.DATABASE_URL,
    layout: layoutFromEnvironment(env),
    listen: data.WRENN_LISTEN,
    localCredentials: data.WRENN_LOCAL_CREDENTIALS,
    logLevel: data.WRENN_LOG_LEVEL,
    allowedOrigins: data.WRENN_ALLOWED_ORIGINS,
    trustDatabase: data.WRENN_TRUST_DATABASE === "1",
  };
}

function parseListen(text: string, context: z.RefinementCtx): ListenAddress {
  const [, v6, name, port] = listenPattern.exec(text) ?? [];
  const host = v6 ?? name;
  if (host === undefined || Number(port) > 65_535) {
    context.addIssue({ code: "custom", message: "expected ADDRESS:PORT, such as 127.0.0.1:7070 or [::1]:7070" });
    return z.NEVER;
  }
  return { host, port: Number(port) };
}

function parseOrigins(text: string, context: z.RefinementCtx): string[] {
  const origins = text
    .split(",")
    .map((origin) => origin.trim())
    .filter((origin) => origin !== "");
  // As browsers send it: scheme, host and port, nothing behind.
  if (origins.every((origin) => URL.canParse(origin) && new URL(origin).origin === origin)) return origins;
  context.addIssue({
    code: "custom",
    message: "expected origins such as https://app.example.com, separated by commas",
  });
  return z.NEVER;
}
