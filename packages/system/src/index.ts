export * from "./abort.ts";
export * from "./durable-file.ts";
export * from "./keyed-lock.ts";
export * from "./layout.ts";
export * from "./poll.ts";
export * from "./process-identity.ts";
export * from "./steps.ts";
export * from "./subprocess.ts";
