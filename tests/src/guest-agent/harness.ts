/**
 * A guest agent on this machine, seeing a small world of its own: other users in /etc/passwd, an empty /home, a full
 * disk at /mnt, its own host name. It cannot set the clock, which is the machine's.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { createClient, type Client, type Interceptor } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { filesystemProto, processProto } from "@wrenn/contract";
import { layoutFromEnvironment } from "@wrenn/system";
import { z } from "zod";

/** As set-up built and installed it; the checkout that it was built from may be another. */
export const guestAgentFile = layoutFromEnvironment().guestAgent;

/** The unprivileged default user; no user of a real machine has this id. */
export const user = { name: "user", uid: 43_210, gid: 43_210, home: "/home/user" } as const;

/** Size of the file system at /mnt. */
export const smallDiskBytes = 1024 * 1024;

const people = `
  mount -t tmpfs -o size=${smallDiskBytes} tmpfs /mnt
  printf '%s\\n' 'root:x:0:0:root:/root:/bin/bash' '${user.name}:x:${user.uid}:${user.gid}::${user.home}:/bin/bash' \\
    'other:x:43211:43211::/home/other:/bin/sh' 'homeless:x:43212:43212::/nonexistent:/bin/sh' >/etc/passwd
  printf '%s\\n' 'root:x:0:' '${user.name}:x:${user.gid}:' 'other:x:43211:' 'extra:x:43299:other,${user.name}' >/etc/group
  mkdir -p /home/user /home/other
  chown 43210:43210 /home/user
  chown 43211:43211 /home/other
  exec setpriv --bounding-set=-sys_time --inh-caps=-sys_time "$@"
`;

/** The machine's own files, but for /etc and /home. */
const world = `
  scratch=$1; shift
  mkdir "$scratch/etc" "$scratch/work" "$scratch/home"
  mount -t overlay overlay -o "lowerdir=/etc,upperdir=$scratch/etc,workdir=$scratch/work" /etc
  mount --bind "$scratch/home" /home
  ${people}
`;

/**
 * For tests that have the agent do what nobody has chosen: its processes see and signal only each other, it has no device that
 * matters, and all that changes is gone with it.
 */
const sealedWorld = `
  scratch=$1; agent=$2; shift 2
  mount -t tmpfs -o size=256m tmpfs "$scratch"
  cd "$scratch"
  mkdir upper work root
  mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
  mount -t proc proc root/proc
  mount -t tmpfs tmpfs root/dev
  for device in null:3 zero:5 full:7 random:8 urandom:9; do
    mknod -m 666 "root/dev/\${device%:*}" c 1 "\${device#*:}"
  done
  mkdir root/dev/pts
  mount -t devpts -o newinstance,ptmxmode=666 devpts root/dev/pts
  ln -s pts/ptmx root/dev/ptmx
  cp "$agent" root/bin/wrenn-guest
  rm -rf root/home/*
  exec chroot root sh -euc "$PEOPLE" sh /bin/wrenn-guest "$@"
`;

export interface GuestAgent {
  readonly pid: number;
  readonly port: number;
  /** Where calls from inside the guest would arrive. */
  readonly guestPort: number;
  readonly url: string;
  /** Where this process finds a file of the agent's world. */
  readonly outside: (file: string) => string;
  process(options?: ClientOptions): Client<typeof processProto.Process>;
  filesystem(options?: ClientOptions): Client<typeof filesystemProto.Filesystem>;
  fetch(file: string, init?: RequestInit): Promise<Response>;
  stop(): Promise<void>;
}

export interface ClientOptions {
  /** Binary protobuf instead of JSON. */
  readonly binary?: boolean;
  readonly user?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new Error("a TCP server without a port");
  return address.port;
}

async function untilHealthy(url: string, child: ChildProcess): Promise<void> {
  const deadline = Date.now() + 10_000;
  for (;;) {
    if (child.exitCode !== null) throw new Error(`the guest agent exited with ${child.exitCode}`);
    const healthy = await fetch(`${url}/health`).then(
      (response) => response.status === 204,
      () => false,
    );
    if (healthy) return;
    if (Date.now() > deadline) throw new Error("the guest agent does not answer");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

export function basicUser(name: string): string {
  return `Basic ${Buffer.from(`${name}:`).toString("base64")}`;
}

function addHeaders(options: ClientOptions): Interceptor {
  return (next) => (request) => {
    if (options.user !== undefined) request.header.set("Authorization", basicUser(options.user));
    for (const [name, value] of Object.entries(options.headers ?? {})) request.header.set(name, value);
    return next(request);
  };
}

/** What a call sends. */
export type RequestBody = string | Uint8Array<ArrayBuffer> | Blob | FormData | ReadableStream<Uint8Array>;

const refusalSchema = z.object({ code: z.union([z.number(), z.string()]), message: z.string() });

/** An answer that is an error: its HTTP status beside what its body says. */
export async function refusal(response: Response): Promise<{ status: number; code: number | string; message: string }> {
  return { status: response.status, ...refusalSchema.parse(await response.json()) };
}

export interface GuestAgentOptions {
  /** Whatever it does stays within it, as in a VM; `outside` finds nothing of it then. */
  readonly sealed?: boolean;
}

export async function startGuestAgent({ sealed = false }: GuestAgentOptions = {}): Promise<GuestAgent> {
  const scratch = await mkdtemp(path.join(tmpdir(), "wrenn-guest-agent-"));
  const [port, guestPort] = [await freePort(), await freePort()];
  const agent = [
    guestAgentFile,
    "agent",
    "--port",
    `${port}`,
    "--host-interface",
    "lo",
    "--guest-port",
    `${guestPort}`,
  ];
  const own = sealed ? ["--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"] : ["--mount", "--uts"];
  const child = spawn("unshare", [...own, "sh", "-euc", sealed ? sealedWorld : world, "sh", scratch, ...agent], {
    stdio: ["ignore", "inherit", "inherit"],
    env: { ...process.env, PEOPLE: people },
  });
  const ended = once(child, "exit");
  const { pid } = child;
  if (pid === undefined) throw new Error("the guest agent did not start");
  const url = `http://127.0.0.1:${port}`;

  const stop = async (): Promise<void> => {
    child.kill("SIGKILL");
    await ended;
    await rm(scratch, { recursive: true, force: true });
  };
  try {
    await untilHealthy(url, child);
  } catch (error) {
    await stop();
    throw error;
  }
  const transport = (options: ClientOptions) =>
    createConnectTransport({
      httpVersion: "1.1",
      baseUrl: url,
      useBinaryFormat: options.binary ?? false,
      interceptors: [addHeaders(options)],
    });
  return {
    pid,
    port,
    guestPort,
    url,
    outside: (file) => path.join(`/proc/${pid}/root`, file),
    process: (options = {}) => createClient(processProto.Process, transport(options)),
    filesystem: (options = {}) => createClient(filesystemProto.Filesystem, transport(options)),
    fetch: (file, init) => fetch(`${url}${file}`, init),
    stop,
  };
}
