/** Every error a caller can meet, by stable code. Codes and statuses are a compatibility promise (docs/errors.md). */

import { z } from "zod";

interface ErrorDefinition {
  /** HTTP status the public API answers with. */
  readonly status: number;
  /** One plain sentence; a thrower may give a more specific one. */
  readonly message: string;
  /** What the caller can do. */
  readonly suggestion: string;
  /** Whether the same request may succeed later without anything being changed. */
  readonly retryable: boolean;
}

export const errorRegistry = {
  // The request
  invalid_request: {
    status: 400,
    retryable: false,
    message: "The request is not valid.",
    suggestion: "Correct the fields named in details and send it again.",
  },
  invalid_id: {
    status: 400,
    retryable: false,
    message: "That is not an id of the expected kind.",
    suggestion: "Use the id exactly as the API returned it.",
  },
  invalid_name: {
    status: 400,
    retryable: false,
    message: "That name is not allowed.",
    suggestion: "Use 1 to 64 letters, digits, dots, underscores and dashes, beginning with a letter or digit.",
  },
  malformed_json: {
    status: 400,
    retryable: false,
    message: "The body is not valid JSON.",
    suggestion: "Send a JSON object.",
  },
  unauthorized: {
    status: 401,
    retryable: false,
    message: "The API key is missing, unknown or revoked.",
    suggestion: "Send a key in the X-API-Key header.",
  },
  forbidden: {
    status: 403,
    retryable: false,
    message: "The API key may not do that.",
    suggestion: "Use a key of the team that may.",
  },
  route_not_found: {
    status: 404,
    retryable: false,
    message: "There is nothing at this address.",
    suggestion: "See the API's documentation for what there is.",
  },
  method_not_allowed: {
    status: 405,
    retryable: false,
    message: "This address does not answer that method.",
    suggestion: "Use a method named in the Allow header.",
  },
  body_too_large: {
    status: 413,
    retryable: false,
    message: "The body is larger than this address takes.",
    suggestion: "Send less, or use a streaming endpoint.",
  },
  unsupported_media_type: {
    status: 415,
    retryable: false,
    message: "The body's content type is not understood here.",
    suggestion: "Send application/json.",
  },
  headers_too_large: {
    status: 431,
    retryable: false,
    message: "The request's headers are larger than this server takes.",
    suggestion: "Send fewer or shorter headers; 32 KiB are allowed in all.",
  },
  origin_not_allowed: {
    status: 403,
    retryable: false,
    message: "A page of this origin may not use this server.",
    suggestion: "Name the origin in WRENN_ALLOWED_ORIGINS.",
  },
  upgrade_required: {
    status: 426,
    retryable: false,
    message: "This address speaks WebSocket only.",
    suggestion: "Connect to it with a WebSocket client.",
  },
  message_too_large: {
    status: 413,
    retryable: false,
    message: "A message on the WebSocket is larger than this server takes.",
    suggestion: "Send input in pieces of at most 1 MiB.",
  },
  invalid_message: {
    status: 400,
    retryable: false,
    message: "The server does not understand a message on the WebSocket.",
    suggestion: "See the API's documentation for the messages there are.",
  },
  request_timeout: {
    status: 408,
    retryable: true,
    message: "The request did not arrive in time.",
    suggestion: "Send it again without pauses.",
  },
  // Sandboxes
  sandbox_not_found: {
    status: 404,
    retryable: false,
    message: "There is no such sandbox.",
    suggestion: "List the sandboxes of your team to see which there are.",
  },
  template_not_found: {
    status: 404,
    retryable: false,
    message: "There is no such template.",
    suggestion: "Use the built-in template: minimal.",
  },
  snapshot_not_found: {
    status: 404,
    retryable: false,
    message: "Your team has no snapshot of that name.",
    suggestion: "List the snapshots to see which there are.",
  },
  snapshot_name_taken: {
    status: 409,
    retryable: false,
    message: "There is a snapshot or template of that name already.",
    suggestion: "Choose another name, or send overwrite: true to replace your team's snapshot.",
  },
  sandbox_state_conflict: {
    status: 409,
    retryable: true,
    message: "The sandbox is not in a state that allows this.",
    suggestion: "Look at its status and try again when it has settled.",
  },
  sandbox_busy: {
    status: 409,
    retryable: true,
    message: "Another operation on this sandbox is under way.",
    suggestion: "Try again when it is done.",
  },
  sandbox_paused: {
    status: 409,
    retryable: false,
    message: "The sandbox is paused.",
    suggestion: "Resume it first; its memory, disk and processes are kept.",
  },
  sandbox_died: {
    status: 409,
    retryable: false,
    message: "The sandbox's virtual machine has died, and its memory with it.",
    suggestion: "Recover it from its disk or from its last pause, as far as `recoverable` names them, or delete it.",
  },
  recovery_unavailable: {
    status: 409,
    retryable: false,
    message: "Nothing is kept that the sandbox could be recovered from like that.",
    suggestion: "See `recoverable` of the sandbox for what is.",
  },
  idempotency_conflict: {
    status: 409,
    retryable: false,
    message: "The Idempotency-Key was used before, for a request that asked for something else.",
    suggestion: "Use a new key for a new request.",
  },
  idle_timeout: {
    status: 409,
    retryable: false,
    message: "Nobody had used the sandbox for its whole timeout.",
    suggestion:
      "Resume it if it is paused, or create another with a longer timeout_seconds, none, or on_timeout: pause.",
  },
  console_gone: {
    status: 410,
    retryable: false,
    message: "The sandbox's console is no longer kept.",
    suggestion: "Read it while the sandbox is there: it goes with the sandbox.",
  },
  port_closed: {
    status: 502,
    retryable: true,
    message: "The sandbox is running but nothing listens on that port.",
    suggestion: "Start the service in the sandbox, or use another port.",
  },
  create_interrupted: {
    status: 500,
    retryable: true,
    message: "The creation was cut short and no host has the sandbox.",
    suggestion: "Delete this sandbox and create another.",
  },
  // The guest
  guest_boot_timeout: {
    status: 504,
    retryable: true,
    message: "The guest did not answer in time after its start.",
    suggestion: "Try again; if it persists, look at the sandbox's console output.",
  },
  guest_panicked: {
    status: 500,
    retryable: false,
    message: "The guest's kernel panicked.",
    suggestion: "Look at the console output in details; give the sandbox more memory if the kernel ran out of it.",
  },
  guest_out_of_memory: {
    status: 500,
    retryable: false,
    message: "The guest ran out of memory and its kernel killed the process.",
    suggestion: "Create the sandbox with more memory.",
  },
  guest_powered_off: {
    status: 500,
    retryable: false,
    message: "The guest powered itself off.",
    suggestion: "Create a new sandbox.",
  },
  vm_died: {
    status: 500,
    retryable: false,
    message: "The virtual machine ended unexpectedly.",
    suggestion: "Look at the host agent's log for the engine's last words.",
  },
  memory_unreadable: {
    status: 500,
    retryable: false,
    message: "A part of the sandbox's frozen memory could not be read or is damaged, so its virtual machine was ended.",
    suggestion: "Look at the host's disk and the host agent's log; recover the sandbox from its disk.",
  },
  guest_init_failed: {
    status: 500,
    retryable: true,
    message: "The guest did not accept its configuration.",
    suggestion: "Try again; if it persists, look at the sandbox's console output.",
  },
  // Commands in a sandbox
  command_not_found: {
    status: 404,
    retryable: false,
    message: "The sandbox has no such program.",
    suggestion: "Check its spelling, give its full path, or install it in the sandbox.",
  },
  command_not_executable: {
    status: 403,
    retryable: false,
    message: "The program cannot be executed in the sandbox.",
    suggestion: "Make it executable, or name a program that is.",
  },
  process_not_found: {
    status: 404,
    retryable: false,
    message: "The sandbox has no such process, or it has ended.",
    suggestion: "List the sandbox's processes to see which there are.",
  },
  process_tag_taken: {
    status: 409,
    retryable: false,
    message: "A process of the sandbox has that tag already.",
    suggestion: "Attach to that process, end it first, or use another tag.",
  },
  // Files in a sandbox
  file_not_found: {
    status: 404,
    retryable: false,
    message: "The sandbox has no such file or directory.",
    suggestion: "Check the path; a relative one starts at the user's home directory.",
  },
  file_exists: {
    status: 409,
    retryable: false,
    message: "There is something at that path already.",
    suggestion: "Use what is there, or remove it first.",
  },
  file_access_denied: {
    status: 403,
    retryable: false,
    message: "The user may not do that to this path.",
    suggestion: "Name another user, such as root, or another path.",
  },
  wrong_file_type: {
    status: 400,
    retryable: false,
    message: "What is at that path is of another type than this needs.",
    suggestion: "Use the list for directories and the file itself for files.",
  },
  guest_out_of_disk: {
    status: 507,
    retryable: false,
    message: "The sandbox's disk is full.",
    suggestion: "Remove files in the sandbox, or create one with a larger disk.",
  },
  invalid_archive: {
    status: 400,
    retryable: false,
    message: "That is not a whole tar archive, or it has entries that lead outside the directory.",
    suggestion: "Send an uncompressed tar archive with relative paths.",
  },
  range_not_satisfiable: {
    status: 416,
    retryable: false,
    message: "The file has no bytes in that range.",
    suggestion: "Ask for a range within the file's size.",
  },
  watch_overflow: {
    status: 503,
    retryable: true,
    message: "More changed than could be told in time, so changes were lost.",
    suggestion: "Look at the directory itself, then watch it again.",
  },
  guest_refused: {
    status: 400,
    retryable: false,
    message: "The guest agent refused the request.",
    suggestion: "Correct what the message names and send it again.",
  },
  guest_timeout: {
    status: 504,
    retryable: true,
    message: "The sandbox did not answer in time.",
    suggestion: "It may be busy: try again, or look at its metrics.",
  },
  connection_lost: {
    status: 503,
    retryable: true,
    message: "The connection to the sandbox broke and could not be made again in time.",
    suggestion: "The sandbox may still be running: look at its status and connect again.",
  },
  // The host
  engine_missing: {
    status: 500,
    retryable: false,
    message: "No program that runs virtual machines is installed.",
    suggestion: "Install QEMU: apt-get install qemu-system-x86.",
  },
  engine_too_old: {
    status: 500,
    retryable: false,
    message: "The installed QEMU is too old.",
    suggestion: "Install QEMU 7.2 or newer.",
  },
  engine_unavailable: {
    status: 500,
    retryable: false,
    message: "The engine that WRENN_ENGINE demands cannot run on this host.",
    suggestion: "Mend what the message names, or set WRENN_ENGINE=auto.",
  },
  engine_failed: {
    status: 500,
    retryable: true,
    message: "The engine refused or failed a command.",
    suggestion: "Look at the host agent's log for the engine's own words.",
  },
  snapshot_incompatible: {
    status: 409,
    retryable: false,
    message:
      "The frozen state was made by another engine, engine version or processor, or with another format of disks, than its host has.",
    suggestion: "Start the host agent with what details name and try again, or make the sandbox or snapshot anew.",
  },
  snapshot_damaged: {
    status: 500,
    retryable: false,
    message: "The frozen state is damaged or incomplete on the host's disk.",
    suggestion: "Look at the host's disk; restore it from a backup, or delete the sandbox or snapshot.",
  },
  boot_files_missing: {
    status: 500,
    retryable: false,
    message: "Kernel, initramfs or root filesystem is missing on the host.",
    suggestion: "Run `wrenn setup` on the host.",
  },
  host_out_of_memory: {
    status: 503,
    retryable: true,
    message: "The host has too little free memory for this sandbox.",
    suggestion: "Ask for less memory, destroy sandboxes you no longer need, or try again later.",
  },
  host_out_of_disk: {
    status: 503,
    retryable: true,
    message: "The host has too little free disk space for this sandbox.",
    suggestion: "Free space on the host, or try again later.",
  },
  no_capacity: {
    status: 503,
    retryable: true,
    message: "No host has room for this sandbox.",
    suggestion: "Ask for less, destroy sandboxes you no longer need, or try again later.",
  },
  network_setup_failed: {
    status: 500,
    retryable: true,
    message: "The sandbox's network could not be made.",
    suggestion: "Run `wrenn doctor` on the host.",
  },
  disk_setup_failed: {
    status: 500,
    retryable: true,
    message: "The sandbox's disk could not be made ready, or not be given back.",
    suggestion: "Run `wrenn doctor` on the host.",
  },
  disk_failed: {
    status: 500,
    retryable: false,
    message: "The sandbox's disk takes no writes any more: one to the file behind it has failed.",
    suggestion: "Free space on the host or mend its disk; then destroy the sandbox, or recover it once it has died.",
  },
  loop_devices_exhausted: {
    status: 503,
    retryable: true,
    message: "The host has no loop device left, of which each sandbox's disk needs one.",
    suggestion:
      "Destroy or pause sandboxes, or give the host more: remove the kernel's max_loop setting, and see that /dev/loop-control is there.",
  },
  // The platform
  database_unavailable: {
    status: 503,
    retryable: true,
    message: "PostgreSQL does not answer.",
    suggestion: "Running sandboxes are not affected; try again when the database is back.",
  },
  database_incompatible: {
    status: 500,
    retryable: false,
    message: "The database was made by another version of Wrenn.",
    suggestion: "Run the version that made it, or name another database in DATABASE_URL.",
  },
  host_unavailable: {
    status: 503,
    retryable: true,
    message: "The host agent does not answer.",
    suggestion: "Running sandboxes are not affected; try again when the agent is back.",
  },
  shutting_down: {
    status: 503,
    retryable: true,
    message: "This server is shutting down.",
    suggestion: "Try again in a moment.",
  },
  response_timeout: {
    status: 504,
    retryable: true,
    message: "The server did not answer in time.",
    suggestion: "Look at whether it did what was asked, and try again or allow it more time.",
  },
  internal: {
    status: 500,
    retryable: false,
    message: "Something went wrong inside Wrenn.",
    suggestion: "Report the request id; the server's log has the cause.",
  },
  // The machine, as the command line and the bootstrap meet it
  root_required: {
    status: 500,
    retryable: false,
    message: "Wrenn must run as root on this machine.",
    suggestion: "Run the same command with sudo.",
  },
  unsupported_machine: {
    status: 500,
    retryable: false,
    message: "This machine cannot run Wrenn.",
    suggestion: "Use Linux on x86-64.",
  },
  dependency_missing: {
    status: 500,
    retryable: false,
    message: "Something Wrenn needs is not installed.",
    suggestion: "Install what the message names, then run the command again.",
  },
  setup_failed: {
    status: 500,
    retryable: true,
    message: "A step of the set-up failed.",
    suggestion: "Mend what the message names, then run the command again: it goes on where it stopped.",
  },
  port_taken: {
    status: 500,
    retryable: false,
    message: "Another program listens on the server's port.",
    suggestion: "Stop that program, or choose another address with WRENN_LISTEN=127.0.0.1:PORT.",
  },
  already_running: {
    status: 500,
    retryable: false,
    message: "A Wrenn server runs already in this WRENN_DIR.",
    suggestion: "Use it as it is, or stop it first with `wrenn down`.",
  },
  sandboxes_running: {
    status: 409,
    retryable: false,
    message: "Sandboxes are running on this machine.",
    suggestion: "Destroy them with --destroy, or let them run on without a server with --leave-running.",
  },
  server_unreachable: {
    status: 503,
    retryable: true,
    message: "The Wrenn server does not answer.",
    suggestion: "Start it with `wrenn up`.",
  },
  local_file_failed: {
    status: 500,
    retryable: false,
    message: "A file of this machine could not be read or written.",
    suggestion: "The message has the system's own words.",
  },
  subprocess_failed: {
    status: 500,
    retryable: false,
    message: "A program that Wrenn runs failed.",
    suggestion: "The message has the program's own words.",
  },
} as const satisfies Record<string, ErrorDefinition>;

export type ErrorCode = keyof typeof errorRegistry;

export function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(errorRegistry, code);
}

/** What the public API answers on any failure. */
export const errorBodySchema = z
  .object({
    error: z.object({
      code: z.string().describe("Stable; docs/errors.md has them all."),
      message: z.string().describe("One sentence on what happened."),
      details: z.record(z.string(), z.unknown()).optional().describe("What a program may want to know more of it."),
      suggestion: z.string().optional().describe("What to do."),
      request_id: z.string().optional().describe("Also in the header X-Request-Id; the server's log has it."),
    }),
  })
  .meta({ id: "Error", description: "What is answered on any failure." });
export type ErrorBody = z.infer<typeof errorBodySchema>;

export interface WrennErrorOptions {
  message?: string | undefined;
  suggestion?: string | undefined;
  details?: Record<string, unknown> | undefined;
  requestId?: string | undefined;
  cause?: unknown;
}

/** An error with a code of the registry. Its message may be shown to the caller; its cause is for the log only. */
export class WrennError extends Error {
  readonly code: ErrorCode;
  readonly suggestion: string;
  readonly details: Record<string, unknown> | undefined;
  /** Under which the server that answered with this has logged it. */
  readonly requestId: string | undefined;

  constructor(code: ErrorCode, options: WrennErrorOptions = {}) {
    super(options.message ?? errorRegistry[code].message, options.cause === undefined ? {} : { cause: options.cause });
    this.name = "WrennError";
    this.code = code;
    this.suggestion = options.suggestion ?? errorRegistry[code].suggestion;
    this.details = options.details;
    this.requestId = options.requestId;
  }

  get status(): number {
    return errorRegistry[this.code].status;
  }

  get retryable(): boolean {
    return errorRegistry[this.code].retryable;
  }

  toBody(requestId = this.requestId): ErrorBody {
    return {
      error: {
        code: this.code,
        message: this.message,
        ...(this.details === undefined ? {} : { details: this.details }),
        suggestion: this.suggestion,
        ...(requestId === undefined ? {} : { request_id: requestId }),
      },
    };
  }
}

/** Whatever was caught, as a WrennError: itself, or `internal` with it as the cause. */
export function asWrennError(thrown: unknown): WrennError {
  return thrown instanceof WrennError ? thrown : new WrennError("internal", { cause: thrown });
}

/** An error with its causes, for a log or a terminal: one line each, outermost first. */
export function describeError(thrown: unknown): string {
  const lines: string[] = [];
  const seen = new Set<unknown>();
  for (let at: unknown = thrown; at !== undefined && !seen.has(at); at = at instanceof Error ? at.cause : undefined) {
    seen.add(at);
    lines.push(
      at instanceof WrennError ? `${at.code}: ${at.message}` : at instanceof Error ? at.message : JSON.stringify(at),
    );
  }
  return lines.join("\n  caused by ");
}
